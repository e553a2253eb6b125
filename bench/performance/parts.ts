/** The parts of a report: benches that run in their own processes and write a JSON file. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { benchModels } from '../shapes.ts';
import type { PartResult } from './report-format.ts';
import { SHARES } from './shares.ts';

export interface Part {
  /** Unique name; names of the parts of one goal begin with the same words. */
  readonly name: string;
  /** Path below bench/. */
  readonly script: string;
  readonly args: readonly string[];
  /** Arguments added by --quick: fewer repetitions, shorter texts. */
  readonly quickArgs: readonly string[];
  /** Approximate time on 2 cores, for the forecast. */
  readonly seconds: number;
  readonly quickSeconds: number;
  /** Whether it prints JSON to stdout; otherwise it writes the file of --json. */
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

const callersPart = (shape: string, args: readonly string[], seconds: number): Part => ({
  name: `callers ${shape}`,
  script: 'callers.ts',
  args: [cachedModel(shape, 'q8_0'), ...args],
  quickArgs: ['--repeat', '1', '--long', '512'],
  seconds,
  quickSeconds: seconds / 4,
});

/** In the order in which they run. Missing models are written to the folder of the benches first. */
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
  callersPart('gemma3-1b', ['--repeat', '2'], 400),
  callersPart('gpt2', ['--only', 'batch,cancel,loop,hosting', '--long', '512'], 60),
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

/** A part may take this multiple of its forecast: machines differ, and models may have to be written. */
const PATIENCE = 10;

/** Runs a part and passes on its stderr. Does not throw: the result of a failed part has its error. */
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

/** Runs a script and returns its stdout, and an error if it failed. */
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
      // Paths of this checkout are removed from the error.
      resolve({
        out,
        error:
          line?.replaceAll(path.dirname(benchFolder), '.') ?? (signal ? `ended by ${signal}` : `exit code ${code}`),
      });
    });
  });
}
