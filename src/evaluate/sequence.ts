/** One text in the cache: the blocks that hold its keys and values, in their order. */
import { PAGE } from '../backend/backend.ts';
import { LanewiseError, OutOfMemoryError } from '../errors.ts';
import type { BlockPool } from './block-pool.ts';
import { Block, longestMatch, type Match, type Root } from './blocks.ts';

export interface SequenceOptions {
  /** Tokens that it will have at least, as far as is known: models with LongRoPE rotate its first keys by it. Default 0. */
  readonly expected?: number;
  /** Only sequences of one key share blocks: the name of an adapter, a tenant. Default: that of all without one. */
  readonly key?: string;
}

export class Sequence {
  /** Where its pages are from. */
  readonly pool: BlockPool;
  readonly #key: string;
  #expected: number;
  #ropeSet: number;
  readonly #blocks: Block[] = [];
  #length = 0;
  /** The first block that this sequence computed itself and gave to the index. */
  #firstOwn = Number.POSITIVE_INFINITY;
  #released = false;
  /** Pages of the blocks, with room for more. */
  #table = new Int32Array(16);

  constructor(pool: BlockPool, { expected = 0, key = '' }: SequenceOptions) {
    this.pool = pool;
    this.#key = key;
    this.#expected = expected;
    this.#ropeSet = pool.ropeSet(expected);
  }

  /** Positions computed. */
  get length(): number {
    return this.#length;
  }

  /** The tokens computed. */
  get tokens(): number[] {
    const tokens: number[] = [];
    for (const block of this.#blocks) {
      for (const token of block.tokens) if (tokens.length < this.#length) tokens.push(token);
    }
    return tokens;
  }

  /** Tokens that choose the rope frequencies of the next `rows` rows. */
  span(rows: number): number {
    return Math.max(this.#expected, this.#length + rows);
  }

  /** Whether `rows` more rows need other rope frequencies (LongRoPE): `reuse` then begins anew. */
  crosses(rows: number): boolean {
    return this.pool.ropeSet(this.span(rows)) !== this.#ropeSet;
  }

  /**
   * Takes over what the cache has of `ids`, the tokens of the sequence so far and those to come. What the sequence has
   * beyond a common beginning is cut off; under other rope frequencies it begins anew.
   * @param most tokens; the last one is computed in any case: its logits choose the next one
   * @param beside a running sequence whose last block, which is not full and so not shared, may be copied
   * @returns the new length. @throws LanewiseError Disposed
   */
  async reuse(ids: readonly number[], most = ids.length - 1, beside?: Sequence): Promise<number> {
    this.#alive();
    const before = this.#begin(ids, most);
    while (this.#length < most) {
      const full = Math.floor(this.#length / PAGE);
      const parent = this.#parentOf(full);
      if (parent === undefined) break;
      const match = best(
        longestMatch(this.pool.childrenOf(parent), ids, full * PAGE, most),
        beside && this.#lastOf(beside, full, ids, most),
      );
      if (!match || full * PAGE + match.shared <= this.#length) break;
      if (match.shared < PAGE) {
        await this.#copyInto(full, match.block, match.shared);
        break;
      }
      // It may have been cut back into this very block.
      if (this.#blocks[full] !== match.block) {
        this.pool.hold(match.block);
        this.#put(full, match.block);
      }
      this.#length = (full + 1) * PAGE;
    }
    this.pool.hit(Math.max(0, this.#length - before));
    return this.#length;
  }

  /**
   * Makes sure of pages for so many positions, those of blocks that nobody uses among them, which no other sequence has
   * where they will be written. @throws OutOfMemoryError, nothing is lost then; LanewiseError Disposed
   */
  async reserve(positions: number): Promise<void> {
    this.#alive();
    const full = Math.floor(this.#length / PAGE);
    const last = this.#blocks[full];
    const shared = last && positions > this.#length && !this.#own(full) ? last : undefined;
    const missing = Math.max(0, Math.ceil(positions / PAGE) - this.#blocks.length);
    if (missing === 0 && !shared) return;
    const pages = await this.pool.take(missing + (shared ? 1 : 0));
    const blocks = pages.map((page) => newBlock(page));
    try {
      if (shared && !this.#released) {
        await this.pool.pages.copy(shared.page, blocks[0]!.page);
        blocks[0]!.tokens.push(...shared.tokens.slice(0, this.#length % PAGE));
      }
      this.#alive();
    } catch (error) {
      for (const block of blocks) this.pool.drop(block);
      throw error;
    }
    for (const [i, block] of blocks.entries()) this.#put(shared && i === 0 ? full : this.#blocks.length, block);
  }

  /** The page of every PAGE positions: a view, valid until the sequence changes. */
  table(): Int32Array {
    return this.#table.subarray(0, this.#blocks.length);
  }

  /** Notes that the next positions have been computed, in pages that were reserved. Blocks that are full can be shared now. */
  append(tokens: readonly number[]): void {
    if (this.#released) return;
    for (const token of tokens) {
      const index = Math.floor(this.#length / PAGE);
      const block = this.#blocks[index];
      if (block?.tokens.length !== this.#length % PAGE) throw new Error('positions were appended that nobody reserved');
      block.tokens.push(token);
      this.#length++;
      if (!block.full) continue;
      const parent = this.#rootOr(index);
      if (!parent) continue;
      const shown = this.pool.publish(parent, block);
      if (shown === block) this.#firstOwn = Math.min(this.#firstOwn, index);
      this.#put(index, shown);
    }
  }

  /** Cuts off all positions from `length` on, and what has been expected. */
  truncate(length: number): void {
    this.#expected = 0;
    if (length >= this.#length) return;
    this.#length = length;
    while (this.#blocks.length > Math.ceil(length / PAGE)) this.pool.drop(this.#blocks.pop()!);
    if (this.#firstOwn >= Math.floor(length / PAGE)) this.#firstOwn = Number.POSITIVE_INFINITY;
    this.#own(Math.floor(length / PAGE));
  }

  /** Gives the pages back; what they hold stays cached until others need them. May be called twice. */
  release(): void {
    this.#released = true;
    const index = this.#blocks.findLastIndex(({ tokens }) => tokens.length > 0);
    const last = this.#blocks[index];
    const parent = last && !last.full && this.#rootOr(index);
    if (parent) this.#put(index, this.pool.publish(parent, last));
    this.#clear();
  }

  /** As `release`, and the cache forgets what this sequence computed: numbers in it may not be finite. */
  discard(): void {
    this.#released = true;
    const first = this.#blocks[this.#firstOwn];
    if (first) this.pool.discard(first);
    this.#clear();
  }

  #alive(): void {
    if (this.#released) throw new LanewiseError('Disposed', 'the sequence, or its conversation, has been disposed');
  }

  /** Cuts the sequence to a beginning of `ids`, or to nothing where so many tokens need other frequencies. @returns its length */
  #begin(ids: readonly number[], most: number): number {
    const set = this.pool.ropeSet(ids.length);
    if (set !== this.#ropeSet) this.#restart(set);
    const kept = this.tokens;
    let shared = 0;
    while (shared < kept.length && shared < most && kept[shared] === ids[shared]) shared++;
    const last = this.#blocks[Math.floor(shared / PAGE)];
    // A block that only this sequence uses stays in the index, and is copied like any other.
    this.truncate(last?.parent && last.users === 1 ? shared - (shared % PAGE) : shared);
    this.#expected = ids.length;
    return shared;
  }

  /** Gives all blocks to the cache, where they stay for sequences of their own length. */
  #restart(set: number): void {
    this.release();
    this.#released = false;
    this.#ropeSet = set;
  }

  /** Deepest blocks first, so that the cache gives them up first. */
  #clear(): void {
    while (this.#blocks.length > 0) this.pool.drop(this.#blocks.pop()!);
    this.#length = 0;
    this.#firstOwn = Number.POSITIVE_INFINITY;
  }

  get #namespace(): string {
    return `${this.#ropeSet} ${this.#key}`;
  }

  /** What block `index` follows in the index; undefined where that is not in it. */
  #parentOf(index: number): Block | string | undefined {
    if (index === 0) return this.#namespace;
    const before = this.#blocks[index - 1]!;
    return before.parent && before;
  }

  #rootOr(index: number): Block | Root | undefined {
    const parent = this.#parentOf(index);
    return typeof parent === 'string' ? this.pool.root(parent) : parent;
  }

  /** Block `index` of another sequence that is the same up to there. */
  #lastOf(other: Sequence, index: number, ids: readonly number[], most: number): Match | undefined {
    const block = other.#blocks[index];
    const same =
      index === 0 ? other.#namespace === this.#namespace : other.#blocks[index - 1] === this.#blocks[index - 1];
    return same && block && !block.full ? longestMatch([block], ids, index * PAGE, most) : undefined;
  }

  /** Whether the sequence may write to its block `index`; what it does not have of it is forgotten then. */
  #own(index: number): boolean {
    const block = this.#blocks[index];
    if (!block || !this.pool.own(block)) return false;
    block.tokens.length = Math.min(block.tokens.length, this.#length - index * PAGE);
    return true;
  }

  /** Block `index` becomes a copy of the first tokens of another one; where no page can be had, that one itself. */
  async #copyInto(index: number, source: Block, tokens: number): Promise<void> {
    const { pool } = this;
    pool.hold(source);
    const [page] = await pool.take(1).catch((error: unknown) => {
      if (error instanceof OutOfMemoryError) return [];
      throw error;
    });
    if (page === undefined && !this.#released && pool.reclaim(source)) {
      source.tokens.length = tokens;
      this.#put(index, source);
    } else {
      const block = page === undefined ? undefined : newBlock(page, source.tokens.slice(0, tokens));
      try {
        if (block && !this.#released) await pool.pages.copy(source.page, block.page);
        this.#alive();
      } catch (error) {
        if (block) pool.drop(block);
        throw error;
      } finally {
        pool.drop(source);
      }
      if (!block) return;
      this.#put(index, block);
    }
    this.#length = index * PAGE + tokens;
  }

  #put(index: number, block: Block): void {
    const before = this.#blocks[index];
    if (before === block) return;
    if (before) this.pool.drop(before);
    this.#blocks[index] = block;
    if (index >= this.#table.length) {
      const larger = new Int32Array(2 * this.#table.length);
      larger.set(this.#table);
      this.#table = larger;
    }
    this.#table[index] = block.page;
  }
}

const best = (a: Match | undefined, b: Match | undefined): Match | undefined =>
  (b?.shared ?? 0) > (a?.shared ?? 0) ? b : a;

/** A block that its maker uses. */
function newBlock(page: number, tokens?: number[]): Block {
  const block = new Block(page, tokens);
  block.users = 1;
  return block;
}
