/** The backend's surroundings under Node: V8's flags and worker threads. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, freemem, homedir, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { getEnvironmentData, type Serializable, setEnvironmentData, type Worker } from 'node:worker_threads';
import { BackendError, memoryRefused } from '../../../errors.ts';
import type { Built } from './built.ts';
import * as build from './built.ts';
import type { CompileOptions, Notes, Thread, WasmHost } from './host.ts';
import { kernelHash } from './kernel-hash-node.ts';
import { watchLife } from './life-node.ts';
import { read } from './read-node.ts';
import { besideModule, startThread } from './start-node.ts';
import type { ThreadSetup } from './thread-setup.ts';

/**
 * V8 prints a line about a flag it does not know: ask only engines that have these. Other runtimes imitate
 * `process.versions`.
 */
function v8HasFlags(): boolean {
  const { node, v8, bun, deno } = process.versions;
  return bun === undefined && deno === undefined && node !== undefined && Number.parseInt(v8, 10) >= 12;
}

export function nodeHost(): WasmHost {
  const optimizes = v8HasFlags();
  return {
    cores: Math.min(availableParallelism(), physicalCores() ?? Number.POSITIVE_INFINITY),
    memoryBytes: memoryBytes(),
    // Node 20.0 has only what the whole machine has left.
    unusedBytes: process.availableMemory?.() ?? freemem(),
    threads: threadsWithin(attempt(addressLimit)),
    // V8 joins vectors on x64 only.
    widens: optimizes && process.arch === 'x64',
    compile: (bytes, options) => (optimizes ? compileOptimized(bytes, options) : compileModule(bytes)),
    prestart,
    endPrestarted,
    spawn,
    read,
  };
}

/** The machine's memory, or the limit of the process's group. */
function memoryBytes(): number {
  // Without a limit Node says 0, or more than there can be.
  const limit = process.constrainedMemory?.() || Number.POSITIVE_INFINITY;
  return Math.min(totalmem(), limit);
}

/** Addresses that a process with threads may need: V8 reserves gigabytes for each thread, and ends the process without. */
const ROOM_FOR_THREADS = 64 * 2 ** 30;

/** @param limit bytes of addresses that the process may use, undefined for all */
export function threadsWithin(limit: number | undefined): WasmHost['threads'] {
  if (limit === undefined || limit >= ROOM_FOR_THREADS) return { possible: true };
  const size = `${(limit / 1e9).toFixed(0)} GB`;
  const reason = `the address space is limited to ${size}, too little for V8 to start threads; raise the limit (ulimit -v)`;
  return { possible: false, reason, remarkable: true };
}

/** Undefined where Linux sets none. @throws errors of the system elsewhere */
function addressLimit(): number | undefined {
  const [, soft] = /^Max address space +(\d+) /m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return soft === undefined ? undefined : Number(soft);
}

const attempt = <T>(what: () => T): T | undefined => {
  try {
    return what();
  } catch {
    return undefined;
  }
};

/** `lanewise/machine.json` in the user's folder of caches; undefined with LANEWISE_NOTES=off. */
export function cachedNotes({ LANEWISE_NOTES, XDG_CACHE_HOME } = process.env): Notes | undefined {
  if (LANEWISE_NOTES === 'off') return undefined;
  const folder = path.join(XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'lanewise');
  const file = path.join(folder, 'machine.json');
  // What was found out about other kernels, as in a checkout that has changed since, says nothing.
  const kernels =
    (build.built as Built | undefined)?.kernelHash ??
    attempt(() => kernelHash(fileURLToPath(besideModule('../../..', import.meta.url))));
  if (kernels === undefined) return undefined;
  return {
    machine: `${cpus()[0]?.model}, Node ${process.version}, V8 ${process.versions.v8}, kernels of ${kernels}`,
    read: () => attempt(() => readFileSync(file, 'utf8')),
    write: (text) => {
      attempt(() => {
        mkdirSync(folder, { recursive: true });
        // Whole or not at all, also when several processes write.
        const whole = `${file}.${process.pid}`;
        writeFileSync(whole, text);
        renameSync(whole, file);
      });
    },
  };
}

/**
 * Cores as Linux lists them, two threads of one core counted once: both would share its vector units. Undefined where
 * the list cannot be had.
 * @param folder one folder per processor, `cpu0`, `cpu1`, ...
 */
export function physicalCores(folder = '/sys/devices/system/cpu'): number | undefined {
  try {
    const processors = readdirSync(folder).filter((name) => /^cpu\d+$/.test(name));
    const siblings = processors.flatMap((name) => {
      const list = `${folder}/${name}/topology/thread_siblings_list`;
      // A processor that is switched off has no topology.
      return existsSync(list) ? [readFileSync(list, 'utf8').trim()] : [];
    });
    return siblings.length > 0 ? new Set(siblings).size : undefined;
  } catch {
    return undefined;
  }
}

/** @throws OutOfMemoryError where the engine finds no room for code */
function compileModule(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (error) {
    throw error instanceof RangeError ? memoryRefused(bytes.length) : error;
  }
}

/**
 * Compiles with the optimizing tier at once: otherwise the first calls run in the baseline compiler, 5 to 7 times slower
 * and never 256 bits wide. The mask names functions 0 to 30 of modules compiled from now on, so modules stay below that.
 * All flags go back to their defaults; compiled code keeps its tier and width, also in other threads.
 *
 * V8 has one set of flags for the process. Threads that compile here take turns, so that none resets the flags of another.
 * A module of the program that another thread compiles meanwhile may be optimized at once as well; what it computes stays.
 */
function compileOptimized(bytes: Uint8Array<ArrayBuffer>, { wide }: CompileOptions): WebAssembly.Module {
  takeFlags();
  try {
    setFlagsFromString('--wasm-tier-mask-for-testing=2147483647');
    setFlagsFromString('--no-wasm-lazy-compilation');
    // V8 knows this flag on x64 only, and prints an error about it elsewhere.
    if (wide) setFlagsFromString('--experimental-wasm-revectorize');
    return compileModule(bytes);
  } finally {
    setFlagsFromString('--wasm-tier-mask-for-testing=0');
    setFlagsFromString('--wasm-lazy-compilation');
    if (wide) setFlagsFromString('--no-experimental-wasm-revectorize');
    Atomics.store(flagLock, 0, 0);
    Atomics.notify(flagLock, 0, 1);
  }
}

const LOCK_NAME = 'lanewise: lock of V8 flags';

/** One word that threads inherit from the thread that started them: 1 while one of them has changed the flags. */
export const flagLock: Int32Array = inheritedLock();

function inheritedLock(): Int32Array {
  const inherited = getEnvironmentData(LOCK_NAME) as unknown;
  if (inherited instanceof SharedArrayBuffer) return new Int32Array(inherited);
  const made = new SharedArrayBuffer(4);
  setEnvironmentData(LOCK_NAME, made as unknown as Serializable);
  return new Int32Array(made);
}

/** Milliseconds after which the holder of the lock is taken for a thread that was ended. */
const LOCK_PATIENCE = 10_000;

function takeFlags(): void {
  while (Atomics.compareExchange(flagLock, 0, 0, 1) !== 0) {
    if (Atomics.wait(flagLock, 0, 1, LOCK_PATIENCE) === 'timed-out') return;
  }
}

/** Workers that wait for their setup. */
const waiting: Worker[] = [];

/** A worker that does not keep the process alive. @throws errors of the system */
function startWorker(): Worker {
  const worker = startThread('kernels', './worker-node', import.meta.url, 'lanewise');
  worker.unref();
  return worker;
}

function prestart(threads: number): void {
  while (waiting.length < threads) {
    // Spawning a thread reports why none starts.
    const worker = attempt(startWorker);
    if (!worker) return;
    const leave = (): void => {
      if (waiting.includes(worker)) waiting.splice(waiting.indexOf(worker), 1);
    };
    worker.on('error', leave).on('exit', leave);
    waiting.push(worker);
  }
}

async function endPrestarted(): Promise<void> {
  await Promise.all(waiting.splice(0).map((worker) => worker.terminate()));
}

/** What helps where the system or Node's permissions refuse a thread. */
const remedies: Readonly<Record<string, string>> = {
  ERR_ACCESS_DENIED: 'start Node with --allow-worker',
  EMFILE: 'raise the limit of open files (ulimit -n)',
  EAGAIN: 'raise the limit of processes (ulimit -u)',
  ERR_WORKER_OUT_OF_MEMORY: 'there is too little memory',
};

function startFailure(thread: number, error: unknown): BackendError {
  const { message, code } = error as NodeJS.ErrnoException;
  const [found = ''] = Object.keys(remedies).filter((name) => code === name || message.includes(name));
  const [line = ''] = message.split('\n');
  const cause = [line.replace(/\.$/, ''), remedies[found]].filter(Boolean).join('; ');
  return new BackendError('ThreadFailed', `thread ${thread} did not start: ${cause}`);
}

function spawn(setup: ThreadSetup): Thread {
  try {
    return threadOf(waiting.pop() ?? startWorker(), setup);
  } catch (error) {
    const none = Promise.resolve();
    return { ready: Promise.reject(startFailure(setup.thread, error)), ended: none, terminate: () => none };
  }
}

/** @param worker runs worker-node.ts, and has not been told its setup yet */
export function threadOf(worker: Worker, setup: ThreadSetup): Thread {
  let isLost = (): boolean => false;
  const ready = new Promise<void>((resolve, reject) => {
    worker.once('message', (descriptor: number | undefined) => {
      isLost = watchLife(descriptor);
      resolve();
    });
    worker.once('error', (error: Error) => reject(startFailure(setup.thread, error)));
    worker.once('exit', () =>
      reject(new BackendError('ThreadFailed', `thread ${setup.thread} ended before it was ready`)),
    );
  });
  // An idle pool must not keep the process alive, one that starts must.
  worker.ref();
  worker.postMessage(setup);
  const started = ready.finally(() => worker.unref());
  return {
    ready: started,
    ended: new Promise((resolve) => worker.once('exit', () => resolve())),
    isLost: () => isLost(),
    async terminate() {
      await worker.terminate();
    },
  };
}
