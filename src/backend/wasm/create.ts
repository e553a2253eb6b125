/** Creates the WebAssembly backend with the fastest kernels that pass the self-check. Its result is remembered if the host can. */
import { BackendError, OptionError } from '../../errors.ts';
import type { Storage } from '../../quant/storage.ts';
import { type Backend, type BackendOptions, MAX_THREADS } from '../backend.ts';
import { type Explanation, optionOr } from '../explanation.ts';
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
  const { plan, onWarning } = options;
  const storages = [
    ...new Set(plan.weights.filter((w) => w.shape.length === 2 && w.shares === undefined).map((w) => w.storage)),
  ];
  const { host, threads, refused, explanation } = planThreads(options);
  if (refused !== undefined) onWarning?.(`one thread only: ${refused}`);
  host.prestart?.(threads - 1);
  const start = performance.now();
  const { choice, explanations } = await checkedChoice(host, storages, onWarning);
  options.onSpan?.({ name: 'choose kernels', start, end: performance.now() });
  const decided = [explanation, explainVectors(options, choice), ...explanations];
  return buildBackend({ ...options, host, threads, choice, decided });
}

/** The threads that a backend starts, and why so many. @throws OptionError */
function planThreads({
  host: given,
  threads: asked,
  revectorize = true,
}: Pick<WasmOptions, 'host' | 'threads' | 'revectorize'>): {
  host: WasmHost;
  threads: number;
  /** Why there is one thread although more were wanted. */
  refused?: string;
  explanation: Explanation;
} {
  const wanted = asked ?? Math.min(given.cores, MAX_THREADS);
  if (!(Number.isInteger(wanted) && wanted >= 1 && wanted <= MAX_THREADS)) {
    throw new OptionError('threads', `an integer from 1 to ${MAX_THREADS}`, asked);
  }
  const host = withMemory({ ...given, widens: given.widens && revectorize }, wanted);
  const key = 'threads.wanted';
  if (!host.threads.possible && wanted > 1) {
    const { reason } = host.threads;
    return { host, threads: 1, refused: reason, explanation: { key, value: 1, from: 'machine', why: reason } };
  }
  const why = asked === undefined ? (given.why?.cores ?? `${given.cores} cores`) : undefined;
  return {
    host,
    threads: wanted,
    explanation: { key, value: wanted, from: optionOr('threads', asked, 'machine'), why },
  };
}

/** The threads and kernels that a backend will have, unless the kernels fail their check. @throws OptionError */
export function planMachine(options: Pick<WasmOptions, 'host' | 'threads' | 'revectorize'>): {
  threads: number;
  choice: Choice;
} {
  const { host, threads } = planThreads(options);
  return { threads, choice: chooseKernels(host) };
}

function explainVectors({ host, revectorize }: WasmOptions, { wide }: Choice): Explanation {
  const refused = revectorize === false && host.widens;
  const why = refused ? undefined : (host.why?.vectors ?? 'WebAssembly has vectors of 128 bits');
  return { key: 'vectors.bits', value: wide ? 256 : 128, from: refused ? 'option revectorize' : 'machine', why };
}

interface CheckedChoice {
  readonly choice: Choice;
  readonly explanations: readonly Explanation[];
}

async function checkedChoice(
  host: WasmHost,
  storages: readonly Storage[],
  onWarning?: (text: string) => void,
): Promise<CheckedChoice> {
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
    const known = storages.filter((storage) => !unknown.includes(storage));
    return { choice: best, explanations: explainKernels(best, { checked: unknown, known, keeps: book.keeps }) };
  }
  onWarning?.(`${problem} on this machine; using the portable ones`);
  const worse = await selfCheck({ host, choice: portable }, storages);
  if (worse !== undefined)
    throw new BackendError(
      'SelfCheckFailed',
      `the portable ${worse}; use backend: 'reference' and report this machine`,
    );
  return {
    choice: portable,
    explanations: explainKernels(portable, { checked: storages, known: [], keeps: book.keeps, problem }),
  };
}

interface CheckResult {
  /** Storages whose kernels were checked now, and those whose check is remembered. */
  readonly checked: readonly Storage[];
  readonly known: readonly Storage[];
  /** Whether results are kept for the next process. */
  readonly keeps: boolean;
  /** Why the best kernels are not used. */
  readonly problem?: string;
}

const products: Readonly<Record<Choice['q8'], string>> = {
  pairs: 'pairs of 16-bit products',
  quads: 'relaxed dot products of four bytes',
};

function explainKernels(
  { q8, eighthBit, tiles }: Choice,
  { checked, known, keeps, problem }: CheckResult,
): Explanation[] {
  const sign = q8 === 'quads' ? `, whose eighth bit this machine takes as ${eighthBit}` : '';
  const shapes = Object.entries(tiles ?? {}).map(([storage, { tokens, lanes }]) => `${storage} ${tokens}x${lanes}`);
  const parts = [
    ...(checked.length ? [`checked now: ${checked.join(', ')}`] : []),
    ...(known.length ? [`remembered: ${known.join(', ')}`] : []),
  ];
  return [
    {
      key: 'kernels.products',
      value: q8,
      from: problem ? 'self-check' : 'machine',
      why: problem ?? products[q8] + sign,
    },
    { key: 'kernels.check', value: problem ? 'portable' : 'passed', from: 'self-check', why: parts.join('; ') },
    {
      key: 'kernels.tiles',
      value: shapes.length ? shapes.join(', ') : 'default',
      from: shapes.length ? 'notes' : 'default',
      why: shapes.length ? 'measured on this machine: rows x columns, where faster than the default' : undefined,
    },
    {
      key: 'kernels.notes',
      value: keeps,
      from: 'machine',
      why: keeps ? 'checks and measurements are kept for the next process' : 'nothing is measured or kept',
    },
  ];
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
