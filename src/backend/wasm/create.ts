/** Creates the WebAssembly backend with the fastest kernels that pass the self-check. Its result is remembered if the host can. */
import { BackendError, OptionError } from '../../errors.ts';
import type { Storage } from '../../quant/storage.ts';
import { type Backend, type BackendOptions, MAX_THREADS } from '../backend.ts';
import { buildBackend } from './backend.ts';
import { type Choice, portable } from './choosing/choice.ts';
import { KernelNotes } from './choosing/kernel-notes.ts';
import { chooseKernels } from './choosing/probe.ts';
import { tuned } from './choosing/tune.ts';
import { MEMORY_LIMIT, WASM_PAGE } from './memory/memory.ts';
import { selfCheck } from './self-check.ts';
import type { WasmHost } from './threads/host.ts';

export interface WasmOptions extends BackendOptions {
  readonly host: WasmHost;
  /** Default: the number of cores; 1 if the host has no threads. */
  readonly threads?: number;
  /** Whether to use 256-bit kernels if the host can compile them. Default true. */
  readonly revectorize?: boolean;
  readonly onWarning?: (text: string) => void;
  /** Uses all threads for every forward, even if fewer are faster: for measurements. */
  readonly allThreads?: boolean;
}

/**
 * @throws OptionError for a bad thread count, BackendError when even the portable kernels fail their check
 */
export async function createWasmBackend(options: WasmOptions): Promise<Backend> {
  const { plan, onWarning, revectorize = true } = options;
  const wanted = options.threads ?? options.host.cores;
  const host = withMemory({ ...options.host, widens: options.host.widens && revectorize }, wanted);
  const storages = [
    ...new Set(plan.weights.filter((w) => w.shape.length === 2 && w.shares === undefined).map((w) => w.storage)),
  ];
  const threads = threadCount({ ...options, host });
  host.prestart?.(threads - 1);
  const start = performance.now();
  const choice = await checkedChoice(host, storages, onWarning);
  options.onSpan?.({ name: 'choose kernels', start, end: performance.now() });
  return buildBackend({ ...options, host, threads, choice });
}

async function checkedChoice(
  host: WasmHost,
  storages: readonly Storage[],
  onWarning?: (text: string) => void,
): Promise<Choice> {
  const book = new KernelNotes(host.notes);
  const best = tuned(host, chooseKernels(host), storages, book);
  const { wide, q8, q4, eighthBit, tiles } = best;
  const name = (storage: Storage): string =>
    `right ${wide ? 'wide' : 'narrow'} ${q8} ${q4} ${eighthBit} ${tiles?.[storage]?.tokens ?? ''} ${storage}`;
  const unknown = storages.filter((storage) => book.get(name(storage)) === undefined);
  const problem = await selfCheck({ host, choice: best }, unknown);
  if (problem === undefined) {
    for (const storage of unknown) book.set(name(storage), 1);
    book.close();
    return best;
  }
  onWarning?.(`${problem} on this machine; using the portable ones`);
  const worse = await selfCheck({ host, choice: portable }, storages);
  if (worse === undefined) return portable;
  throw new BackendError('SelfCheckFailed', `the portable ${worse}; use backend: 'reference' and report this machine`);
}

/** The host, without threads if the engine refuses a shared memory of full size, as on small devices. */
function withMemory(host: WasmHost, threads: number): WasmHost {
  if (!host.threads.possible || threads === 1) return host;
  try {
    new WebAssembly.Memory({ initial: 1, maximum: MEMORY_LIMIT / WASM_PAGE, shared: true });
    return host;
  } catch {
    return { ...host, threads: { possible: false, reason: 'the engine gives no shared WebAssembly memory' } };
  }
}

function threadCount({ host, threads, onWarning }: WasmOptions): number {
  const asked = threads ?? Math.min(host.cores, MAX_THREADS);
  if (!(Number.isInteger(asked) && asked >= 1 && asked <= MAX_THREADS)) {
    throw new OptionError('threads', `an integer from 1 to ${MAX_THREADS}`, threads);
  }
  if (host.threads.possible || asked === 1) return asked;
  onWarning?.(`one thread only: ${host.threads.reason}`);
  return 1;
}
