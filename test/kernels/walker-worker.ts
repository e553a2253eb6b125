/** A thread of walker.test.ts: walks its tape the given number of times, then posts the result. */
import { parentPort, workerData } from 'node:worker_threads';

export interface WalkerJob {
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
  readonly kernels: readonly string[];
  readonly tape: number;
  readonly steps: number;
  readonly walks: number;
  readonly thread: number;
  readonly threads: number;
  readonly spins: number;
}

export type Walk = (tape: number, steps: number, thread: number, threads: number, spins: number) => number;

/** `walk` of a module that holds its step kernels as well. */
export function instantiate(
  { memory, module, kernels }: Pick<WalkerJob, 'memory' | 'module' | 'kernels'>,
  mark: (slot: number) => void,
): Walk {
  const table = new WebAssembly.Table({ element: 'anyfunc', initial: kernels.length });
  const scratch = new WebAssembly.Global({ value: 'i32', mutable: false }, 0);
  const { exports } = new WebAssembly.Instance(module, { env: { memory, scratch, table, mark, look: () => {} } });
  for (const [index, name] of kernels.entries()) table.set(index, exports[name]);
  return exports.walk as Walk;
}

if (parentPort) {
  const job = workerData as WalkerJob;
  const walk = instantiate(job, () => {});
  let failed = 0;
  for (let n = 0; n < job.walks && !failed; n++) failed = walk(job.tape, job.steps, job.thread, job.threads, job.spins);
  parentPort.postMessage(failed);
}
