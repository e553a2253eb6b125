/** Describes the machine: names and sizes, as reported by the system. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  /** Caches of one core, `L1d 32K, L2 1024K, L3 32768K`; empty if unknown. */
  readonly caches: string;
  readonly memory_bytes: number;
  readonly node: string;
  readonly v8: string;
  /** Whether the relaxed dot product is one instruction (AVX-VNNI), measured by the probe of the kernels. */
  readonly vnni: boolean;
  /** Whether kernels run with 256 bits. */
  readonly wide: boolean;
  /** Commit of Lanewise; empty outside a checkout. */
  readonly commit: string;
}

export function describeMachine(): Machine {
  const { q8, wide } = chooseKernels(nodeHost());
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    caches: caches(),
    memory_bytes: totalmem(),
    node: process.version,
    v8: process.versions.v8,
    vnni: q8 === 'quads',
    wide,
    commit: commit(),
  };
}

function caches(): string {
  const folder = '/sys/devices/system/cpu/cpu0/cache';
  const read = (name: string, file: string): string => readFileSync(`${folder}/${name}/${file}`, 'utf8').trim();
  try {
    const names = readdirSync(folder).filter(
      (name) => name.startsWith('index') && read(name, 'type') !== 'Instruction',
    );
    const suffix = (name: string): string => (read(name, 'type') === 'Data' ? 'd' : '');
    return names.map((name) => `L${read(name, 'level')}${suffix(name)} ${read(name, 'size')}`).join(', ');
  } catch {
    return '';
  }
}

function commit(): string {
  try {
    const args = ['-C', import.meta.dirname, 'rev-parse', '--short', 'HEAD'];
    return execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return '';
  }
}
