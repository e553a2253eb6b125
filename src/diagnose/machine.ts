/** Checks of this machine: what Lanewise needs, and what it could use. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { portable } from '../backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../backend/wasm/choosing/probe.ts';
import { selfCheck } from '../backend/wasm/self-check.ts';
import { cpuQuota } from '../backend/wasm/threads/cpu-quota-node.ts';
import { nodeHost, physicalCores } from '../backend/wasm/threads/host-node.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';
import { type Finding, finding } from './finding.ts';
import { checkFolders, checkHub } from './places.ts';

export interface DiagnoseOptions {
  /** Whether to ask the hub for an answer. Default false. */
  hub?: boolean;
  /** Whether to check the kernels of all storages, which takes some seconds. Default true. */
  kernels?: boolean;
}

/** Findings about this machine, in the order in which they matter. */
export async function diagnoseMachine({ hub = false, kernels = true }: DiagnoseOptions = {}): Promise<Finding[]> {
  return [
    checkNode(process.versions),
    ...checkEngine(),
    await checkFlags(),
    await checkWorkers(),
    ...(kernels ? await checkKernels() : []),
    ...checkProcessors(),
    ...checkMemory(),
    checkOpenFiles(),
    ...(await checkFolders()),
    ...(await checkHub(hub)),
  ];
}

/** The oldest Node that Lanewise runs on, and the oldest whose V8 has the flags for fast kernels. */
const OLDEST_NODE = 20;
const OLDEST_V8 = 12;

type Versions = Readonly<Record<'node' | 'v8' | 'bun' | 'deno', string | undefined>>;

export function checkNode(versions: Partial<Versions>): Finding {
  const { node, v8 = '0', bun, deno } = versions;
  const key = 'node.version';
  if (bun !== undefined)
    return finding('warning', key, `Bun ${bun}`, { why: 'kernels start in the baseline compiler' });
  if (deno !== undefined)
    return finding('warning', key, `Deno ${deno}`, { why: 'kernels start in the baseline compiler' });
  const remedy = `install Node ${OLDEST_NODE} or newer`;
  if (node === undefined) return finding('fault', key, null, { why: 'this is not Node', remedy });
  const value = `${node}, V8 ${v8}`;
  if (Number.parseInt(node, 10) < OLDEST_NODE) return finding('fault', key, value, { remedy });
  if (Number.parseInt(v8, 10) >= OLDEST_V8) return finding('ok', key, value);
  return finding('warning', key, value, {
    why: 'V8 lacks the flags by which kernels are optimized at once and joined to 256 bits',
    remedy: 'install Node 22 or newer',
  });
}

/** A module with one function that has no parameters and this body. */
function moduleOf(body: readonly number[]): Uint8Array<ArrayBuffer> {
  const code = [0, ...body, 0x0b];
  return Uint8Array.of(
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...[1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0],
    ...[10, code.length + 2, 1, code.length, ...code],
  );
}

/** v128.const 0 */
const vector = [0xfd, 0x0c, ...new Array<number>(16).fill(0)];
/** v128.const, drop */
const simdModule = moduleOf([...vector, 0x1a]);
/** i32x4.relaxed_dot_i8x16_i7x16_add_s of three constants, drop */
const relaxedModule = moduleOf([...vector, ...vector, ...vector, 0xfd, 0x93, 0x02, 0x1a]);

/** What the WebAssembly engine can do. @param validate whether a module is valid */
export function checkEngine(
  validate: (bytes: Uint8Array<ArrayBuffer>) => boolean = (bytes) => WebAssembly.validate(bytes),
): Finding[] {
  const simd = validate(simdModule);
  const relaxed = validate(relaxedModule);
  const simdTexts = { why: 'kernels consist of vector instructions', remedy: 'use an engine with WebAssembly SIMD' };
  const relaxedTexts = {
    why: 'products of quantized weights take more instructions',
    remedy: 'install Node 21 or newer',
  };
  return [
    finding(simd ? 'ok' : 'fault', 'wasm.simd', simd, simd ? {} : simdTexts),
    finding(relaxed ? 'ok' : 'warning', 'wasm.relaxed_simd', relaxed, relaxed ? {} : relaxedTexts),
  ];
}

/** Flags that kernels are compiled with. V8 has the last one on x64 only. */
const flags = ['wasm-tier-mask-for-testing', 'wasm-lazy-compilation', 'experimental-wasm-revectorize'];

async function checkFlags(): Promise<Finding> {
  const key = 'node.v8_flags';
  const wanted = process.arch === 'x64' ? flags : flags.slice(0, 2);
  let known: string;
  try {
    const options = { timeout: 10_000, maxBuffer: 2 ** 24 };
    known = (await promisify(execFile)(process.execPath, ['--v8-options'], options)).stdout;
  } catch (error) {
    return finding('warning', key, null, {
      why: `this program could not be asked: ${(error as Error).message.split('\n')[0]}`,
    });
  }
  const missing = wanted.filter((flag) => !known.includes(`--${flag} `));
  if (missing.length === 0) return finding('ok', key, true, { why: wanted.map((flag) => `--${flag}`).join(', ') });
  const why = `not known: ${missing.map((flag) => `--${flag}`).join(', ')}; kernels are compiled without them`;
  return finding('warning', key, false, { why, remedy: 'install Node 22 or newer' });
}

/** Stores 1 in a word of shared memory and wakes who waits for it. */
const workerCode = `
const { workerData } = require('node:worker_threads');
Atomics.store(workerData, 0, 1);
Atomics.notify(workerData, 0);
`;

async function checkWorkers(): Promise<Finding> {
  const key = 'threads.possible';
  const { threads } = nodeHost();
  if (!threads.possible) return finding('warning', key, false, { why: threads.reason });
  try {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
    const word = new Int32Array(memory.buffer, 0, 1);
    const worker = new Worker(workerCode, { eval: true, workerData: word });
    const exited = new Promise<void>((resolve, reject) => worker.once('exit', () => resolve()).once('error', reject));
    await exited;
    if (Atomics.load(word, 0) === 1)
      return finding('ok', key, true, { why: 'a thread wrote to shared memory of 4 GiB' });
    return finding('fault', key, false, { why: 'a thread did not write to shared memory' });
  } catch (error) {
    return finding('warning', key, false, {
      why: `one thread only: ${(error as Error).message.split('\n')[0]}`,
      remedy:
        'under the permission model start Node with --allow-worker; raise limits of memory (ulimit -v) and processes (ulimit -u)',
    });
  }
}

async function checkKernels(): Promise<Finding[]> {
  const key = 'kernels.check';
  const host = nodeHost();
  const choice = chooseKernels(host);
  const storages = Object.keys(storageLayout) as Storage[];
  const vectors = finding('ok', 'vectors.bits', choice.wide ? 256 : 128, { why: host.why?.vectors });
  const problem = await selfCheck({ host, choice }, storages);
  if (problem === undefined) return [vectors, finding('ok', key, 'passed', { why: storages.join(', ') })];
  const worse = await selfCheck({ host, choice: portable }, storages);
  if (worse === undefined)
    return [vectors, finding('warning', key, 'portable', { why: `${problem}: slower ones are used` })];
  const remedy = "use backend: 'reference' and report this machine";
  return [vectors, finding('fault', key, 'failed', { why: `even the portable ${worse}`, remedy })];
}

interface Processors {
  readonly usable: number;
  readonly physical: number | undefined;
  readonly quota: number | undefined;
  /** Mean number of programs that wanted a processor in the last minute. */
  readonly busy: number;
}

export function checkProcessors(given?: Processors): Finding[] {
  const { usable, physical, quota, busy } = given ?? {
    usable: availableParallelism(),
    physical: physicalCores(),
    quota: cpuQuota(),
    busy: loadavg()[0]!,
  };
  const cores = Math.min(usable, physical ?? usable);
  const quotaFinding =
    quota === undefined
      ? finding('ok', 'cores.quota', null, { why: 'no quota of processor time is known' })
      : quota >= cores
        ? finding('ok', 'cores.quota', quota)
        : finding('warning', 'cores.quota', quota, {
            why: `the control group allows less time than ${cores} cores have: ${Math.max(1, Math.floor(quota))} threads are used`,
            remedy: 'raise the limit of the container (docker run --cpus, resources.limits.cpu)',
          });
  const load = Number(busy.toFixed(2));
  return [
    finding('ok', 'cores.usable', usable, { why: 'processors that the operating system lets this process use' }),
    finding('ok', 'cores.physical', physical ?? null, { why: physical === undefined ? 'not known' : undefined }),
    quotaFinding,
    busy > cores / 2
      ? finding('warning', 'cores.load', load, {
          why: `other programs take processors at present: threads without one are left out, and measurements are noisy`,
        })
      : finding('ok', 'cores.load', load, { why: 'mean of the last minute' }),
  ];
}

/** Least unused memory for any model worth the name. */
const LITTLE_MEMORY = 512e6;

function checkMemory(): Finding[] {
  const { memoryBytes, unusedBytes = memoryBytes, why } = nodeHost();
  const little = unusedBytes < LITTLE_MEMORY;
  return [
    finding('ok', 'memory.bytes', memoryBytes, { why: why?.memory }),
    finding(
      little ? 'warning' : 'ok',
      'memory.unused',
      unusedBytes,
      little ? { why: 'little for a model', remedy: 'end other programs, or raise the limit of the container' } : {},
    ),
  ];
}

/** Each thread has a file open for each file of weights, and a model may have a hundred. */
const FEW_FILES = 512;

function checkOpenFiles(): Finding {
  const key = 'limits.open_files';
  const limit = openFileLimit();
  if (limit === undefined) return finding('ok', key, null, { why: 'not known' });
  if (limit >= FEW_FILES) return finding('ok', key, limit);
  return finding('warning', key, limit, {
    why: 'models of many files may be loaded by one thread',
    remedy: 'raise it (ulimit -n 4096)',
  });
}

function openFileLimit(): number | undefined {
  try {
    const [, soft] = /^Max open files +(\d+) /m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
