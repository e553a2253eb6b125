/** What a report of this machine is made of: benches in processes of their own, each with a JSON file as its result. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { benchModels } from '../shapes.ts';
import type { PartResult } from './report-format.ts';
import { SHARES } from './shares.ts';

export interface Part {
  /** Unique; parts of one goal begin alike. */
  readonly name: string;
  /** Below bench/. */
  readonly script: string;
  readonly args: readonly string[];
  /** What --quick adds: fewer repetitions, shorter texts. */
  readonly quickArgs: readonly string[];
  /** About how long it takes on 2 cores, for the forecast. */
  readonly seconds: number;
  readonly quickSeconds: number;
  /** Whether its JSON comes on stdout; otherwise --json names a file. */
  readonly prints?: boolean;
}

const cachedModel = (shape: string, storage: string): string => path.join(benchModels, `${shape}-${storage}.gguf`);

const peerPart = (shape: string, storage: string, seconds: number, batch: boolean, repeat = 4): Part => ({
  name: `peers ${shape} ${storage}`,
  script: 'peers/compare.ts',
  args: [
    ...['--only', shape, '--storage', storage, '--decode-tokens', '48', '--repeat', `${repeat}`],
    ...(batch ? [] : ['--sequences', '0']),
  ],
  quickArgs: ['--repeat', '1', '--decode-tokens', '12', '--prompt-tokens', '256'],
  seconds,
  quickSeconds: seconds / 5,
});

const sharesPart = (shape: string, storage: string, seconds: number): Part => ({
  name: `${SHARES}${shape} ${storage}`,
  script: '../src/cli/lanewise.ts',
  args: ['bench', cachedModel(shape, storage), '--policies', 'none', '--kernels', '--repeat', '3'],
  quickArgs: ['--repeat', '1', '--decode-tokens', '12'],
  seconds,
  quickSeconds: seconds / 3,
  prints: true,
});

/** In the order of running. Models come out of the folder that benches keep; those that are missing are written first. */
export const parts: readonly Part[] = [
  { name: 'roofs', script: 'roofs.ts', args: [], quickArgs: [], seconds: 5, quickSeconds: 5 },
  peerPart('gpt2', 'q8_0', 100, true, 6),
  peerPart('gpt2', 'q4_0', 50, false, 6),
  peerPart('gpt2', 'f32', 75, false, 6),
  peerPart('gpt2', 'q4_k', 60, false, 6),
  peerPart('gpt2', 'q6_k', 60, false, 6),
  peerPart('gemma3-1b', 'q8_0', 240, true),
  peerPart('gemma3-1b', 'f16', 90, false),
  peerPart('gemma3-1b', 'q4_0', 60, false),
  peerPart('gemma3-1b', 'f32', 120, false),
  peerPart('tinyllama-1.1b', 'q8_0', 240, true),
  peerPart('tinyllama-1.1b', 'f16', 100, false),
  peerPart('tinyllama-1.1b', 'q4_0', 70, false),
  peerPart('tinyllama-1.1b', 'q4_k', 80, false),
  peerPart('tinyllama-1.1b', 'q6_k', 90, false),
  sharesPart('gpt2', 'q8_0', 8),
  sharesPart('gpt2', 'q4_0', 8),
  sharesPart('gemma3-1b', 'q8_0', 40),
  sharesPart('tinyllama-1.1b', 'q6_k', 50),
  {
    name: 'kernels wide',
    script: 'kernels.ts',
    args: [],
    quickArgs: ['--turns', '3'],
    seconds: 60,
    quickSeconds: 20,
  },
  {
    name: 'kernels narrow',
    script: 'kernels.ts',
    args: ['--narrow'],
    quickArgs: ['--turns', '3'],
    seconds: 60,
    quickSeconds: 20,
  },
  { name: 'scaling', script: 'scaling.ts', args: [], quickArgs: ['--repeat', '1'], seconds: 120, quickSeconds: 40 },
  {
    name: 'context',
    script: 'context.ts',
    args: [cachedModel('gemma3-1b', 'q8_0')],
    quickArgs: ['--depths', '64,2048', '--kv-cache', 'f32', '--steps', '8'],
    seconds: 240,
    quickSeconds: 30,
    prints: true,
  },
  { name: 'load', script: 'load-rate.ts', args: [], quickArgs: ['--repeat', '1'], seconds: 20, quickSeconds: 8 },
  { name: 'first token', script: 'first-token.ts', args: [], quickArgs: [], seconds: 30, quickSeconds: 20 },
  {
    name: 'threads',
    script: 'stolen-core.ts',
    args: [],
    quickArgs: ['--seconds', '1'],
    seconds: 60,
    quickSeconds: 30,
  },
];

const benchFolder = path.join(import.meta.dirname, '..');

/** How many times its forecast a part may take: machines differ, and models may have to be written. */
const PATIENCE = 10;

/** Never throws: a part that fails says so in its result. What it says on stderr is passed on. */
export async function runPart(part: Part, quick: boolean): Promise<PartResult> {
  const script = path.join(benchFolder, part.script);
  if (!existsSync(script)) return { seconds: 0, error: `bench/${part.script} is not there` };
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-performance-'));
  const file = path.join(folder, 'result.json');
  const args = [script, ...part.args, ...(quick ? part.quickArgs : []), '--json', ...(part.prints ? [] : [file])];
  const start = performance.now();
  try {
    const { out, error } = await run(args, Math.max(60, PATIENCE * part.seconds) * 1000);
    const seconds = (performance.now() - start) / 1000;
    const text = part.prints ? out : await readFile(file, 'utf8').catch(() => '');
    if (text === '') return { seconds, error: error ?? 'it gave no result' };
    return { seconds, result: JSON.parse(text) as unknown, error };
  } catch (error) {
    return { seconds: (performance.now() - start) / 1000, error: (error as Error).message };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** What a script wrote to stdout, and what went wrong, if anything. */
function run(args: readonly string[], milliseconds: number): Promise<{ out: string; error?: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: milliseconds });
    let [out, said] = ['', ''];
    child.stdout.on('data', (data: Buffer) => {
      out += data;
    });
    child.stderr.on('data', (data: Buffer) => {
      process.stderr.write(data);
      said = (said + data).slice(-4000);
    });
    child.on('error', ({ message }) => resolve({ out, error: message }));
    child.on('close', (code, signal) => {
      if (code === 0) return resolve({ out });
      const line = said.split('\n').findLast((text) => /error/i.test(text));
      // Where this checkout is concerns nobody.
      resolve({
        out,
        error:
          line?.replaceAll(path.dirname(benchFolder), '.') ?? (signal ? `ended by ${signal}` : `exit code ${code}`),
      });
    });
  });
}
