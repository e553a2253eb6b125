/** Computes rows of sequences with a plan, its backend and the KV cache. */
import type { ByteSource } from '../formats/bytes.ts';
import { ropeSet } from '../plan/rope.ts';
import { Cache } from './cache.ts';
import type { CacheFileContent, CacheFileContext } from './cache-file.ts';
import { fingerprint } from './fingerprint.ts';
import { type Evaluation, Forwards, type ForwardsParts, type ForwardTiming } from './forwards.ts';
import { checkRows } from './rows.ts';
import { Sequence } from './sequence.ts';

/** Rows of one sequence in a forward. */
export interface SequenceRows {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  /** Whether the logits of the last row are wanted, or of every row. */
  readonly wanted: boolean | 'all';
}

export class Evaluator extends Forwards {
  readonly cache: Cache;

  constructor(parts: ForwardsParts) {
    super(parts);
    const { backend, description } = parts;
    this.cache = new Cache(backend.cache, { capacity: backend.cache.capacity, ropes: description.plan.ropes });
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

  /** How many rows can be appended and rolled back without crossing LongRoPE's limit (which would re-rotate all keys). */
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

  /** Writes the full blocks of the cache, while forwards go on. @throws LanewiseError Disposed */
  saveCache(write: (bytes: Uint8Array) => Promise<void>): Promise<CacheFileContent> {
    return this.cache.save(this.#cacheFile(), write);
  }

  /** Adds the blocks of a file; none after an error. @throws FormatError, OutOfMemoryError, LanewiseError Disposed */
  restoreCache(source: ByteSource): Promise<CacheFileContent> {
    return this.cache.restore(this.#cacheFile(), source);
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

  /** Computes keys and values of a text's first token. @param length of the whole text */
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

  /**
   * LongRoPE has other frequencies for sequences above a limit. A sequence that crosses it is computed again from its first
   * token, as if its length had been known from the start.
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
    for (const [index, { sequence, tokens: added, wanted: which }] of parts.entries()) {
      for (const [i, id] of added.entries()) {
        tokens.push(id);
        positions.push(sequence.length + i);
        sequences.push(index);
        if (which === 'all' || (which && i === added.length - 1)) wanted.push(tokens.length - 1);
      }
      await sequence.reserve(sequence.length + added.length);
    }
    // Tables come last: a reservation may shrink blocks of another sequence.
    const pages = parts.map(({ sequence }) => sequence.table().map((page) => Math.max(0, page)));
    const cells = parts.flatMap(({ sequence }) => sequence.cells() ?? []);
    const batch = {
      tokens: Int32Array.from(tokens),
      positions: Int32Array.from(positions),
      sequences: Int32Array.from(sequences),
      pages,
      ...(cells.length > 0 && { cells }),
      wanted: Int32Array.from(wanted),
      lengths: Int32Array.from(parts, ({ sequence, tokens }) => sequence.span(tokens.length)),
    };
    const evaluation = await this.run(batch, timed);
    for (const { sequence, tokens: added } of parts) sequence.append(added);
    return evaluation;
  }
}
