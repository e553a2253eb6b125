/** A sequence in the cache: the blocks with its keys and values, in order. */
import { PAGE } from '../backend/backend.ts';
import { LanewiseError, OutOfMemoryError } from '../errors.ts';
import type { BlockPool } from './block-pool.ts';
import { Block, longestMatch, type Match, type Root } from './blocks.ts';

export interface SequenceOptions {
  /** The least number of tokens that it will have, if known: it chooses the rope set (LongRoPE). Default 0. */
  readonly expected?: number;
  /** Sequences share blocks only if they have the same key, such as an adapter or a tenant. Default: the common key. */
  readonly key?: string;
}

export class Sequence {
  /** The pool of its pages. */
  readonly pool: BlockPool;
  readonly #key: string;
  #expected: number;
  #ropeSet: number;
  readonly #blocks: Block[] = [];
  #length = 0;
  /** Index of the first block that this sequence computed itself and added to the index. */
  #firstOwn = Number.POSITIVE_INFINITY;
  #released = false;
  /** Number of blocks that are several windows behind, from the first on. */
  #passed = 0;

  constructor(pool: BlockPool, { expected = 0, key = '' }: SequenceOptions) {
    this.pool = pool;
    this.#key = key;
    this.#expected = expected;
    this.#ropeSet = pool.ropeSet(expected);
  }

  /** Number of positions computed. */
  get length(): number {
    return this.#length;
  }

  /** The tokens of these positions. */
  get tokens(): number[] {
    const tokens: number[] = [];
    for (const block of this.#blocks) {
      for (const token of block.tokens) if (tokens.length < this.#length) tokens.push(token);
    }
    return tokens;
  }

  /** The length that chooses the rope set of the next `rows` rows. */
  span(rows: number): number {
    return Math.max(this.#expected, this.#length + rows);
  }

  /** Whether `rows` more rows need another rope set (LongRoPE): `reuse` then starts the sequence again. */
  crosses(rows: number): boolean {
    return this.pool.ropeSet(this.span(rows)) !== this.#ropeSet;
  }

  /**
   * Attaches the blocks that the cache has of `ids`, the tokens of the sequence so far and the following ones.
   * Positions beyond the common prefix are removed; with another rope set the sequence starts again.
   * @param most largest number of tokens to reuse; the last token is always computed, as its logits are needed
   * @param beside a running sequence whose last block, which is not full and so not in the index, may be copied
   * @returns the new length. @throws LanewiseError Disposed
   */
  async reuse(ids: readonly number[], most = ids.length - 1, beside?: Sequence): Promise<number> {
    this.#alive();
    const before = this.#begin(ids, most);
    const first = Math.floor(this.#length / PAGE);
    const found = this.#find(ids, first, most);
    for (const [i, block] of found.entries()) {
      // It may have been cut back into this very block.
      if (this.#blocks[first + i] === block) continue;
      this.pool.hold(block);
      this.#put(first + i, block);
    }
    if (found.length > 0) this.#length = (first + found.length) * PAGE;
    const full = Math.floor(this.#length / PAGE);
    const parent = this.#length < most ? this.#parentOf(full) : undefined;
    if (parent !== undefined) {
      const match = best(
        longestMatch(this.pool.childrenOf(parent), ids, full * PAGE, most),
        beside && this.#lastOf(beside, full, ids, most),
      );
      if (match && match.shared < PAGE && !match.block.shrunk && full * PAGE + match.shared > this.#length)
        await this.#copyInto(full, match.block, match.shared);
    }
    this.#advance();
    this.pool.hit(Math.max(0, this.#length - before));
    return this.#length;
  }

  /**
   * Ensures pages for this many positions, evicting unused blocks if needed. Pages that will be written are not shared with
   * other sequences. @throws OutOfMemoryError, without losing anything; LanewiseError Disposed
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

  /** Page table, one page per PAGE positions; -1 for a shrunk block. */
  table(): Int32Array {
    return Int32Array.from(this.#blocks, ({ page }) => page);
  }

  /** Cell table, one cell per PAGE positions (see CachePages.cells); undefined if pages cannot shrink. */
  cells(): Int32Array | undefined {
    const { cells } = this.pool.pages;
    if (cells <= 1) return undefined;
    return Int32Array.from(this.#blocks, ({ page, cell, shrunk }) => (shrunk ? cell : page * cells));
  }

  /** Notes that the next positions have been computed, in reserved pages. Full blocks are added to the index. */
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
    this.#advance();
  }

  /** Removes all positions from `length` on, and resets the expected length. */
  truncate(length: number): void {
    this.#expected = 0;
    if (length >= this.#length) return;
    this.#length = length;
    while (this.#blocks.length > Math.ceil(length / PAGE)) this.#dropLast();
    this.#retreat();
    if (this.#length === 0) return;
    if (this.#firstOwn >= Math.floor(length / PAGE)) this.#firstOwn = Number.POSITIVE_INFINITY;
    this.#own(Math.floor(length / PAGE));
  }

  /** Releases the blocks, which stay cached until their pages are needed. May be called twice. */
  release(): void {
    this.#released = true;
    const index = this.#blocks.findLastIndex(({ tokens }) => tokens.length > 0);
    const last = this.#blocks[index];
    const parent = last && !last.full && this.#rootOr(index);
    if (parent) this.#put(index, this.pool.publish(parent, last));
    this.#clear();
  }

  /** Like `release`, but removes the blocks that this sequence computed from the cache: their values may not be finite. */
  discard(): void {
    this.#released = true;
    const first = this.#blocks[this.#firstOwn];
    if (first) this.pool.discard(first);
    this.#clear();
  }

  /**
   * Blocks of the index for `ids`, from block `first` on. Ends with a block after which a whole window is not shrunk, because
   * layers with a window need it.
   */
  #find(ids: readonly number[], first: number, most: number): Block[] {
    const found: Block[] = [];
    let usable = 0;
    /** End position of the last shrunk block. */
    let shrunk = 0;
    let parent = this.#parentOf(first);
    for (let index = first; parent !== undefined && (index + 1) * PAGE <= most; index++) {
      const match = longestMatch(this.pool.childrenOf(parent), ids, index * PAGE, most);
      if (match?.shared !== PAGE) break;
      found.push(match.block);
      const end = (index + 1) * PAGE;
      if (match.block.shrunk) shrunk = end;
      if (shrunk === 0 || shrunk <= end - this.pool.pages.window) usable = found.length;
      parent = match.block;
    }
    return found.slice(0, usable);
  }

  /** Number of positions that can be truncated without needing a shrunk block. */
  get #slack(): number {
    return Math.max(this.pool.pages.window, PAGE);
  }

  /** Tells the pool which blocks layers with a window no longer need. */
  #advance(): void {
    const { window, cells } = this.pool.pages;
    if (cells === 1) return;
    const seen = this.#length - window - this.#slack;
    while ((this.#passed + 1) * PAGE <= seen) this.pool.pass(this.#blocks[this.#passed++]!);
  }

  /** After truncation: takes back blocks that are needed again. If one of them is shrunk, the sequence becomes empty. */
  #retreat(): void {
    const { window, cells } = this.pool.pages;
    if (cells === 1) return;
    const seen = this.#length - window - this.#slack;
    while (this.#passed > 0 && this.#passed * PAGE > seen) this.pool.unpass(this.#blocks[--this.#passed]!);
    const from = Math.max(0, Math.floor((this.#length - window) / PAGE));
    if (this.#blocks.some((block, i) => i >= from && block.shrunk)) this.#clear();
  }

  #dropLast(): void {
    const block = this.#blocks.pop()!;
    if (this.#blocks.length < this.#passed) {
      this.pool.unpass(block);
      this.#passed--;
    }
    this.pool.drop(block);
  }

  #alive(): void {
    if (this.#released) throw new LanewiseError('Disposed', 'the sequence, or its conversation, has been disposed');
  }

  /**
   * Cuts the sequence to its common prefix with `ids`, or to nothing if `ids` need another rope set.
   * @returns its length
   */
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

  /** Releases all blocks and continues with another rope set. */
  #restart(set: number): void {
    this.release();
    this.#released = false;
    this.#ropeSet = set;
  }

  /** Releases the blocks, the last one first, so that it is evicted before its parent. */
  #clear(): void {
    while (this.#blocks.length > 0) this.#dropLast();
    this.#length = 0;
    this.#firstOwn = Number.POSITIVE_INFINITY;
  }

  get #namespace(): string {
    return `${this.#ropeSet} ${this.#key}`;
  }

  /** Parent of block `index` in the index; undefined if the previous block is not in the index. */
  #parentOf(index: number): Block | string | undefined {
    if (index === 0) return this.#namespace;
    const before = this.#blocks[index - 1]!;
    return before.parent && before;
  }

  #rootOr(index: number): Block | Root | undefined {
    const parent = this.#parentOf(index);
    return typeof parent === 'string' ? this.pool.root(parent) : parent;
  }

  /** Block `index` of another sequence, if all blocks before it are the same. */
  #lastOf(other: Sequence, index: number, ids: readonly number[], most: number): Match | undefined {
    const block = other.#blocks[index];
    const same =
      index === 0 ? other.#namespace === this.#namespace : other.#blocks[index - 1] === this.#blocks[index - 1];
    return same && block && !block.full ? longestMatch([block], ids, index * PAGE, most) : undefined;
  }

  /** Whether the sequence may write to its block `index`; tokens of the block beyond the sequence are then removed. */
  #own(index: number): boolean {
    const block = this.#blocks[index];
    if (!block || !this.pool.own(block)) return false;
    block.tokens.length = Math.min(block.tokens.length, this.#length - index * PAGE);
    return true;
  }

  /** Makes block `index` a copy of the first tokens of another block, or uses that block if no page is available. */
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
  }
}

const best = (a: Match | undefined, b: Match | undefined): Match | undefined =>
  (b?.shared ?? 0) > (a?.shared ?? 0) ? b : a;

/** A new block with one user. */
function newBlock(page: number, tokens?: number[]): Block {
  const block = new Block(page, tokens);
  block.users = 1;
  return block;
}
