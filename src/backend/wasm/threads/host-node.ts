/** Host for Node: V8's flags and worker threads. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, freemem, homedir, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { getEnvironmentData, type Serializable, setEnvironmentData, type Worker } from 'node:worker_threads';
import { BackendError, memoryRefused } from '../../../errors.ts';
import type { Built } from './built.ts';
import * as build from './built.ts';
import { cpuQuota } from './cpu-quota-node.ts';
import type { CompileOptions, Notes, Thread, WasmHost } from './host.ts';
import { kernelHash } from './kernel-hash-node.ts';
import { watchLife } from './life-node.ts';
import { read } from './read-node.ts';
import { besideModule, startThread } from './start-node.ts';
import type { ThreadSetup } from './thread-setup.ts';

/**
 * Whether this is Node with a V8 that has the flags: V8 prints an error for an unknown flag. Other runtimes imitate
 * `process.versions`.
 */
function v8HasFlags(): boolean {
  const { node, v8, bun, deno } = process.versions;
  return bun === undefined && deno === undefined && node !== undefined && Number.parseInt(v8, 10) >= 12;
}

export function nodeHost(): WasmHost {
  const optimizes = v8HasFlags();
  const counts = { usable: availableParallelism(), physical: physicalCores(), quota: cpuQuota() };
  return {
    cores: usableCores(counts),
    memoryBytes: memoryBytes(),
    // Node 20.0 has only what the whole machine has left.
    unusedBytes: process.availableMemory?.() ?? freemem(),
    threads: threadsWithin(attempt(addressLimit)),
    // V8 revectorizes on x64 only.
    widens: optimizes && process.arch === 'x64',
    why: {
      cores: coresReason(counts),
      vectors: vectorsReason(optimizes),
      memory: limitOfProcess() < totalmem() ? 'limit of this process (cgroup)' : 'memory of the machine',
    },
    compile: (bytes, options) => (optimizes ? compileOptimized(bytes, options) : compileModule(bytes)),
    prestart,
    endPrestarted,
    spawn,
    read,
  };
}

interface CoreCounts {
  /** Processors that the operating system lets this process use. */
  readonly usable: number;
  readonly physical: number | undefined;
  /** Processors' worth of time that the control group allows. */
  readonly quota: number | undefined;
}

/** More threads than this would wait for each other. */
export const usableCores = ({
  usable,
  physical = Number.POSITIVE_INFINITY,
  quota = Number.POSITIVE_INFINITY,
}: CoreCounts): number => Math.min(usable, physical, Math.max(1, Math.floor(quota)));

function coresReason({ usable, physical, quota }: CoreCounts): string {
  const parts = [
    `${usable} ${usable === 1 ? 'processor' : 'processors'} for this process`,
    ...(physical === undefined ? [] : [`${physical} physical ${physical === 1 ? 'core' : 'cores'}`]),
    ...(quota === undefined ? [] : [`a quota of ${Number(quota.toFixed(2))} processors (cgroup)`]),
  ];
  return parts.join(', ');
}

/** Memory of the machine, or the limit of the process (cgroup). */
const memoryBytes = (): number => Math.min(totalmem(), limitOfProcess());

/** Without a limit, Node returns 0 or a number larger than any memory. */
const limitOfProcess = (): number => process.constrainedMemory?.() || Number.POSITIVE_INFINITY;

function vectorsReason(optimizes: boolean): string {
  if (!optimizes) return 'only V8 of Node 21 and newer has the flag for 256 bits';
  if (process.arch !== 'x64') return `V8 joins vectors to 256 bits on x64 only, this is ${process.arch}`;
  return "V8's flag --experimental-wasm-revectorize joins vectors of 128 bits in pairs";
}

/** Address space that a process with threads needs: V8 reserves gigabytes per thread, and aborts if it cannot. */
const ROOM_FOR_THREADS = 64 * 2 ** 30;

/** @param limit bytes of address space that the process may use; undefined: no limit */
export function threadsWithin(limit: number | undefined): WasmHost['threads'] {
  if (limit === undefined || limit >= ROOM_FOR_THREADS) return { possible: true };
  const size = `${(limit / 1e9).toFixed(0)} GB`;
  const reason = `the address space is limited to ${size}, too little for V8 to start threads; raise the limit (ulimit -v)`;
  return { possible: false, reason, remarkable: true };
}

/** The limit that Linux sets; undefined if none. @throws system errors on other platforms */
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

/** The folder of the notes; undefined with LANEWISE_NOTES=off. */
export function notesFolder({ LANEWISE_NOTES, XDG_CACHE_HOME } = process.env): string | undefined {
  if (LANEWISE_NOTES === 'off') return undefined;
  return path.join(XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'lanewise');
}

/** Notes in `lanewise/machine.json` in the user's cache folder; undefined with LANEWISE_NOTES=off. */
export function cachedNotes(environment = process.env): Notes | undefined {
  const folder = notesFolder(environment);
  if (folder === undefined) return undefined;
  const file = path.join(folder, 'machine.json');
  // Notes about other kernels, for instance after a change in a checkout, are not valid.
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
        // Atomic, also when several processes write.
        const whole = `${file}.${process.pid}`;
        writeFileSync(whole, text);
        renameSync(whole, file);
      });
    },
  };
}

/**
 * Number of physical cores, as Linux lists them: hardware threads of one core share its vector units. Undefined if the list
 * is not available.
 * @param folder one folder per processor, `cpu0`, `cpu1`, ...
 */
export function physicalCores(folder = '/sys/devices/system/cpu'): number | undefined {
  try {
    const processors = readdirSync(folder).filter((name) => /^cpu\d+$/.test(name));
    const siblings = processors.flatMap((name) => {
      const list = `${folder}/${name}/topology/thread_siblings_list`;
      // An offline processor has no topology.
      return existsSync(list) ? [readFileSync(list, 'utf8').trim()] : [];
    });
    return siblings.length > 0 ? new Set(siblings).size : undefined;
  } catch {
    return undefined;
  }
}

/** @throws OutOfMemoryError if the engine cannot allocate memory for code */
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
 * Flags are shared by all threads of the process. A lock keeps threads that compile here from resetting each other's flags.
 * A module that the program itself compiles in another thread meanwhile may also be optimized at once, with the same results.
 */
function compileOptimized(bytes: Uint8Array<ArrayBuffer>, { wide }: CompileOptions): WebAssembly.Module {
  takeFlags();
  try {
    setFlagsFromString('--wasm-tier-mask-for-testing=2147483647');
    setFlagsFromString('--no-wasm-lazy-compilation');
    // V8 has this flag on x64 only, and prints an error elsewhere.
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

/** 1 while a thread has changed the flags. Threads inherit this word from the thread that started them. */
export const flagLock: Int32Array = inheritedLock();

function inheritedLock(): Int32Array {
  const inherited = getEnvironmentData(LOCK_NAME) as unknown;
  if (inherited instanceof SharedArrayBuffer) return new Int32Array(inherited);
  const made = new SharedArrayBuffer(4);
  setEnvironmentData(LOCK_NAME, made as unknown as Serializable);
  return new Int32Array(made);
}

/** Milliseconds after which the lock is ignored: its holder was terminated. */
const LOCK_PATIENCE = 10_000;

function takeFlags(): void {
  while (Atomics.compareExchange(flagLock, 0, 0, 1) !== 0) {
    if (Atomics.wait(flagLock, 0, 1, LOCK_PATIENCE) === 'timed-out') return;
  }
}

/** Prestarted workers without a setup. */
const waiting: Worker[] = [];

/** Starts a worker that does not keep the process alive. @throws system errors */
function startWorker(): Worker {
  const worker = startThread('kernels', './worker-node', import.meta.url, 'lanewise');
  worker.unref();
  return worker;
}

function prestart(threads: number): void {
  while (waiting.length < threads) {
    // `spawn` reports the error.
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

/** Remedies for errors at the start of a thread. */
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

/** @param worker runs worker-node.ts and waits for its setup */
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
  // A starting pool keeps the process alive, an idle one does not.
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
