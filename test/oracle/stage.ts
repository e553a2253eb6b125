/**
 * Golden models for schedules: an engine over a backend that is loaded once, with a small cache of its own, a clock that
 * counts steps, and faults where a schedule wants them.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { fileURLToPath } from 'node:url';
import type { Backend, Batch, CachePages, Draw, Results } from '../../src/backend/backend.ts';
import { buildBackend } from '../../src/backend/wasm/backend.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { ChatTemplate } from '../../src/chat/template.ts';
import type { DraftRequest } from '../../src/drafting/drafter.ts';
import { Drafts } from '../../src/drafting/drafts.ts';
import { PromptLookup } from '../../src/drafting/lookup.ts';
import { endTokens } from '../../src/engine/end-tokens.ts';
import { LocalEngine } from '../../src/engine/local-engine.ts';
import { openModel } from '../../src/engine/open.ts';
import { fromGeneration } from '../../src/engine/sampling-defaults.ts';
import { makeTokenizer, readTokenizerSource } from '../../src/engine/tokenizer-source.ts';
import { LanewiseError, OutOfMemoryError } from '../../src/errors.ts';
import { Evaluator, type SequenceRows } from '../../src/evaluate/evaluator.ts';
import type { Evaluation, ForwardTiming } from '../../src/evaluate/forwards.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { buildModel, type ModelDescription } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { PromptEncoder } from '../../src/prompts/prompt.ts';
import type { SchedulerOptions } from '../../src/schedule/scheduler.ts';

const ROWS = 128;
const WANTED = 64;
/** Contexts in the cache of the backend: more than any schedule uses. */
const CONTEXTS = 24;

const template =
  "{{ bos_token }}{% for m in messages %}{{ m.role[0] + ':' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

/** A golden model, loaded. */
export interface Golden {
  readonly name: string;
  readonly threads: number;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly prompts: PromptEncoder;
  readonly eosTokenIds: ReadonlySet<number>;
}

export async function openGolden(name: string, threads: number): Promise<Golden> {
  const folder = nodeFolder(fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url)));
  const files = await openModel(folder);
  const description = buildModel(files.config, files.tensors, { policy: parsePolicy('none') });
  const { vocab, contextLength } = description.config;
  const host = nodeHost();
  const backend = await buildBackend({
    plan: description.plan,
    maxRows: ROWS,
    maxWanted: WANTED,
    cache: { contextLength, tokens: CONTEXTS * contextLength },
    tensor: (tensor) => files.tensor(tensor),
    host,
    threads,
    choice: chooseKernels(host),
    allThreads: true,
  });
  const tokenizer = makeTokenizer((await readTokenizerSource(folder, files))!);
  await files.close();
  const tokens = { bosToken: undefined, eosToken: undefined };
  const prompts = new PromptEncoder({
    name,
    tokenizer,
    chat: { tokens, format: { template: new ChatTemplate(template), ...tokens } },
    vocab,
    contextLength,
    longestContext: contextLength,
  });
  const eosTokenIds = new Set(endTokens({ config: files.config, tokenizer, vocab }));
  return { name, threads, description, backend, prompts, eosTokenIds };
}

/** Where a schedule may act or break something, while a step is under way. */
export type Phase = 'step' | 'forward' | 'copy' | 'draw';

export interface Hooks {
  /** A step of the scheduler begins. */
  readonly step?: () => void;
  /** Told before a forward, a copy of a page or a draw of the scheduler; what it throws is what fails. */
  readonly during?: (phase: Phase, parts: number) => void;
  /** Whether the memory cannot grow. */
  readonly full?: () => boolean;
  /** Index among `wanted` rows whose logits are no numbers, and what is among them. */
  readonly poison?: (wanted: number) => { readonly row: number; readonly value: number } | undefined;
  /** Told when somebody looks at such logits. */
  readonly poisoned?: () => void;
}

export interface StageOptions extends SchedulerOptions {
  readonly capacity: number;
  readonly maxRows: number;
  readonly maxWanted: number;
}

const outside = new AsyncLocalStorage<boolean>();
/** Work that is no step of the scheduler: raw steps and forwards of somebody else. */
export const beside = <T>(work: () => Promise<T>): Promise<T> => outside.run(true, work);

/** Milliseconds that a forward is said to take. */
const costOf = (rows: number): number => 1 + rows / 2;

class StagedPages implements CachePages {
  readonly pageBytes: number;
  readonly tableEntries: number;
  readonly capacity: number;
  readonly window: number;
  readonly cells: number;
  count = 0;
  readonly #pages: CachePages;
  readonly #hooks: Hooks;

  constructor(pages: CachePages, capacity: number, hooks: Hooks) {
    this.#pages = pages;
    this.pageBytes = pages.pageBytes;
    this.tableEntries = pages.tableEntries;
    this.capacity = capacity;
    this.window = pages.window;
    this.cells = pages.cells;
    this.#hooks = hooks;
  }

  async ensure(count: number): Promise<void> {
    if (count <= this.count) return;
    if (this.#hooks.full?.()) throw new OutOfMemoryError('the memory of the test', count, this.count);
    await this.#pages.ensure(count);
    this.count = count;
  }

  async shrink(page: number, cell: number): Promise<void> {
    await turn();
    await this.#pages.shrink(page, cell);
  }

  async copy(from: number, to: number): Promise<void> {
    await turn();
    this.#hooks.during?.('copy', 1);
    await this.#pages.copy(from, to);
  }

  read(page: number): Promise<Uint8Array> {
    return this.#pages.read(page);
  }

  fill(...to: Parameters<CachePages['fill']>): Promise<void> {
    return this.#pages.fill(...to);
  }

  inspect(page: number): ReturnType<CachePages['inspect']> {
    return this.#pages.inspect(page);
  }
}

class StagedEvaluator extends Evaluator {
  readonly #hooks: Hooks;
  #raw = false;

  constructor({ name, description, backend }: Golden, options: StageOptions, hooks: Hooks) {
    const cache = new StagedPages(backend.cache, options.capacity, {
      ...hooks,
      during: (phase, parts) => {
        if (!this.#raw) hooks.during?.(phase, parts);
      },
    });
    const { maxRows, maxWanted } = options;
    const { threads, vectorBits, loadTimes } = backend;
    const staged: Backend = {
      name: backend.name,
      ...{ threads, vectorBits, loadTimes, maxRows, maxWanted, cache },
      memory: () => backend.memory(),
      explain: () => backend.explain(),
      forward: (batch) => this.#run(backend, batch),
      dispose: async () => {},
    };
    super({ name, description, backend: staged });
    this.#hooks = hooks;
  }

  override exclusive<T>(work: () => Promise<T>): Promise<T> {
    const raw = outside.getStore() === true;
    return super.exclusive(async () => {
      this.#raw = raw;
      if (!raw) this.#hooks.step?.();
      return work();
    });
  }

  override async forward(parts: readonly SequenceRows[], timing?: ForwardTiming): Promise<Evaluation> {
    const { results, report } = await super.forward(parts, timing);
    return { results, report: { ...report, ms: costOf(report.rows) } };
  }

  async #run(backend: Backend, batch: Batch): Promise<Results> {
    if (this.#raw) return backend.forward(batch);
    await turn();
    this.#hooks.during?.('forward', batch.pages.length);
    const results = await backend.forward(batch);
    const bad = this.#hooks.poison?.(batch.wanted.length);
    const poison = (row: number): boolean => {
      if (row === bad?.row) this.#hooks.poisoned?.();
      return row === bad?.row;
    };
    return {
      output: (row) => {
        const logits = results.output(row);
        return row === bad?.row ? logits.with(row % logits.length, bad.value) : logits;
      },
      summary: (row) => (poison(row) ? { ...results.summary(row), largest: bad!.value } : results.summary(row)),
      draw: async (draws: readonly Draw[]) => {
        await turn();
        this.#hooks.during?.('draw', batch.pages.length);
        return results.draw(draws);
      },
      tap: (name) => results.tap(name),
      times: results.times,
    };
  }
}

/** Others may act here. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export interface Stage {
  readonly engine: LocalEngine;
  readonly evaluator: Evaluator;
}

/** An engine of its own over a loaded model, with an empty cache. */
export function makeStage(golden: Golden, options: StageOptions, hooks: Hooks = {}): Stage {
  const evaluator = new StagedEvaluator(golden, options, hooks);
  const { prompts, eosTokenIds } = golden;
  const { contextLength } = prompts.files;
  const engine = new LocalEngine({
    info: {
      quantize: 'none',
      eosTokenIds,
      samplingDefaults: fromGeneration(undefined),
      contextLength,
      explanations: [],
    },
    evaluator,
    prompts,
    scheduling: options,
    files: undefined,
  });
  return { engine, evaluator };
}

/** Guesses in every step, right and wrong ones, whatever they cost. @returns what ends that */
export function guessAlways(): () => void {
  const { guess } = Drafts.prototype;
  const lookup = new PromptLookup();
  Drafts.prototype.guess = async (wishes, _, room) => {
    const drafts = new Map<DraftRequest, readonly number[]>();
    let left = room;
    for (const { request, most } of wishes) {
      const { history } = request;
      const found = lookup.lookUp(history, Math.min(most, left));
      const tokens = found.length > 0 ? found : history.slice(0, Math.min(3, most, left));
      if (tokens.length > 0) drafts.set(request, tokens);
      left -= tokens.length;
    }
    return { drafts, ms: 0 };
  };
  return () => {
    Drafts.prototype.guess = guess;
  };
}

/** A failure that a schedule asked for. */
export const injected = (name: string): LanewiseError => new LanewiseError('Internal', `injected ${name}`);

/** Room for one request alone, with nothing in its way. */
export const alone = ({ prompts }: Golden): StageOptions => ({
  capacity: Math.ceil(prompts.files.contextLength / 64),
  maxRows: ROWS,
  maxWanted: 1,
  maxQueue: 0,
  stepBudgetMs: 1e9,
});
