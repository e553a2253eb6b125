/** Computes rows of sequences: a plan, the backend that runs it, and the cache of keys and values. */
import type { Backend, Results } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import type { ByteSource } from '../formats/bytes.ts';
import type { ModelDescription } from '../models/index.ts';
import { describeWork } from '../plan/print.ts';
import { ropeSet } from '../plan/rope.ts';
import { logForward, wantsForward } from '../profile/log.ts';
import { createScopeTimer, type Phases, phasesOf, type StepMilliseconds } from '../profile/scopes.ts';
import { Cache } from './cache.ts';
import type { CacheFileContent, CacheFileContext } from './cache-file.ts';
import { fingerprint } from './fingerprint.ts';
import { checkRows } from './rows.ts';
import { Sequence } from './sequence.ts';

/** Rows that one sequence adds to a forward. */
export interface SequenceRows {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  /** Whether the logits of the last row are wanted, or of every row. */
  readonly wanted: boolean | 'all';
}

/** How closely a forward is timed: not at all, by phase, or step by step (up to 2 % slower in small models). */
export type ForwardTiming = false | true | 'steps';

/** What one forward did. */
export interface ForwardReport {
  /** On the clock of `performance.now()`. */
  readonly start: number;
  readonly ms: number;
  readonly rows: number;
  /** While timed. */
  readonly phases?: Phases;
  /** While timed step by step: one after another, with the wait behind each. */
  readonly steps?: readonly StepMilliseconds[];
}

export interface Evaluation {
  /** Wanted rows in the order of the parts. Valid until the next forward begins. */
  readonly results: Results;
  readonly report: ForwardReport;
}

export interface EvaluatorParts {
  /** Of the model, for messages. */
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
}

export class Evaluator {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly cache: Cache;
  readonly #timer: ReturnType<typeof createScopeTimer>;
  #queue: Promise<unknown> = Promise.resolve();
  #disposed: Promise<void> | undefined;

  constructor({ name, description, backend }: EvaluatorParts) {
    this.name = name;
    this.description = description;
    this.backend = backend;
    this.cache = new Cache(backend.cache, { capacity: backend.cache.capacity, ropes: description.plan.ropes });
    this.#timer = createScopeTimer(description.plan.steps);
  }

  /** Most rows of one forward. */
  get maxRows(): number {
    return this.backend.maxRows;
  }

  /** Most rows of one forward whose logits are wanted. */
  get maxWanted(): number {
    return this.backend.maxWanted;
  }

  get vocab(): number {
    return this.description.config.vocab;
  }

  /** Runs `work` when all work given before is done: results stay valid within it. @throws LanewiseError Disposed */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(() => {
      this.#alive();
      return work();
    });
    this.#queue = run.catch(() => {});
    return run;
  }

  /** How many rows can be appended and cut off again without crossing LongRoPE's limit, behind which all keys change. */
  steadyRows(sequence: Sequence): number {
    const { ropes } = this.description.plan;
    const now = ropeSet(ropes, sequence.span(1));
    let rows = this.maxRows;
    while (rows > 1 && ropeSet(ropes, sequence.length + rows) !== now) rows--;
    return rows;
  }

  /**
   * One forward over rows of different sequences, within `exclusive`.
   * @throws OptionError for rows that it cannot take, OutOfMemoryError before anything is computed
   */
  async forward(parts: readonly SequenceRows[], timing: ForwardTiming = false): Promise<Evaluation> {
    const { maxRows, maxWanted, vocab } = this;
    const owns = (sequence: unknown): boolean => sequence instanceof Sequence && this.cache.owns(sequence);
    checkRows(parts, { maxRows, maxWanted, vocab, owns });
    for (const part of parts) await this.#stretch(part);
    return this.#evaluate(parts, timing);
  }

  /** Writes the whole blocks of the cache, while forwards go on. @throws LanewiseError Disposed */
  saveCache(write: (bytes: Uint8Array) => Promise<void>): Promise<CacheFileContent> {
    return this.cache.save(this.#cacheFile(), write);
  }

  /** Takes over what the file has, or nothing. @throws FormatError, OutOfMemoryError, LanewiseError Disposed */
  restoreCache(source: ByteSource): Promise<CacheFileContent> {
    return this.cache.restore(this.#cacheFile(), source);
  }

  /** Frees threads and memory, when the work given before is done. May be called twice. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.then(() => this.backend.dispose());
    return this.#disposed;
  }

  #cacheFile(): Omit<CacheFileContext, 'pool'> {
    const { plan } = this.description;
    return {
      fingerprint: fingerprint(this.backend, plan),
      vocab: this.vocab,
      exclusive: (work) => this.exclusive(work),
      compute: (page, token, set) => {
        const lengths = [1, ...plan.ropes.map(({ long }) => (long?.above ?? 0) + 1)];
        const length = lengths.find((tokens) => ropeSet(plan.ropes, tokens) === set);
        return length === undefined ? undefined : this.#computeFirst(page, token, length);
      },
    };
  }

  /** Keys and values of a text's first token. @param length of the whole text */
  async #computeFirst(page: number, token: number, length: number): Promise<void> {
    await this.backend.forward({
      tokens: Int32Array.of(token),
      positions: Int32Array.of(0),
      sequences: Int32Array.of(0),
      pages: [Int32Array.of(page)],
      wanted: new Int32Array(0),
      lengths: Int32Array.of(length),
    });
  }

  #alive(): void {
    if (this.#disposed) throw new LanewiseError('Disposed', `${this.name} has been disposed`);
  }

  /**
   * LongRoPE has other frequencies for all tokens of a sequence above a limit: one that crosses it is computed anew, as if
   * its length had been known from the start.
   */
  async #stretch({ sequence, tokens }: SequenceRows): Promise<void> {
    if (!sequence.crosses(tokens.length)) return;
    const before = sequence.tokens;
    await sequence.reuse([...before, ...tokens], before.length);
    while (sequence.length < before.length) {
      const chunk = before.slice(sequence.length, sequence.length + this.maxRows);
      await this.#evaluate([{ sequence, tokens: chunk, wanted: false }], false);
    }
  }

  async #evaluate(parts: readonly SequenceRows[], timed: ForwardTiming): Promise<Evaluation> {
    const tokens: number[] = [];
    const positions: number[] = [];
    const sequences: number[] = [];
    const wanted: number[] = [];
    const pages: Int32Array[] = [];
    for (const [index, { sequence, tokens: added, wanted: which }] of parts.entries()) {
      for (const [i, id] of added.entries()) {
        tokens.push(id);
        positions.push(sequence.length + i);
        sequences.push(index);
        if (which === 'all' || (which && i === added.length - 1)) wanted.push(tokens.length - 1);
      }
      await sequence.reserve(sequence.length + added.length);
      pages.push(sequence.table());
    }
    const logs = wantsForward();
    const timing = timed === 'steps' ? 'steps' : (logs ?? (timed ? 'scopes' : 'off'));
    const start = performance.now();
    const results = await this.backend.forward({
      tokens: Int32Array.from(tokens),
      positions: Int32Array.from(positions),
      sequences: Int32Array.from(sequences),
      pages,
      wanted: Int32Array.from(wanted),
      lengths: Int32Array.from(parts, ({ sequence, tokens }) => sequence.span(tokens.length)),
      timing,
    });
    const report = { start, ms: performance.now() - start, rows: tokens.length };
    for (const { sequence, tokens: added } of parts) sequence.append(added);
    if (timing === 'off') return { results, report };
    const { times } = results;
    const tree = this.#timer(times);
    const { plan } = this.description;
    if (logs) logForward(tree, plan.steps, times, (step) => describeWork(plan, step, tokens.length, wanted.length));
    return { results, report: { ...report, phases: phasesOf(tree), ...(timed === 'steps' && { steps: times }) } };
  }
}
