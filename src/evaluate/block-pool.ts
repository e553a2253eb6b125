/** Manages the pages and blocks of the KV cache: reference counts, the index, and eviction. */
import type { CachePages } from '../backend/backend.ts';
import { OutOfMemoryError } from '../errors.ts';
import { type RopeTable, ropeSet } from '../plan/rope.ts';
import { type Block, IdleBlocks, insertChild, longestMatch, Root, removeTree } from './blocks.ts';
import { Cells } from './cells.ts';

export interface CacheOptions {
  /** Largest number of pages. */
  readonly capacity: number;
  /** Rope tables of the plan: keys depend on the rope set. */
  readonly ropes?: readonly RopeTable[];
}

export interface CacheStats {
  /** Numbers of pages: largest number, used by sequences, only in the index (cached), and free. */
  readonly capacity: number;
  readonly used: number;
  readonly cached: number;
  readonly free: number;
  /** Number of tokens that sequences found in the cache. */
  readonly hitTokens: number;
  /** Number of pages in use that shrinking can free. */
  readonly shrinkable: number;
  /** Number of blocks shrunk so far. */
  readonly shrunk: number;
  /** Number of blocks evicted for others. */
  readonly evictions: number;
}

export class BlockPool {
  readonly pages: CachePages;
  readonly #capacity: number;
  readonly #ropes: readonly RopeTable[];
  readonly #free: number[] = [];
  readonly #idle = new IdleBlocks();
  readonly #roots = new Map<string, Root>();
  /** Number of pages that have ever been used. */
  #touched = 0;
  #hitTokens = 0;
  #evictions = 0;
  #shrunk = 0;
  /** Blocks that can shrink: all their users are several windows beyond them. The oldest first. */
  readonly #passed = new Set<Block>();
  readonly #cells: Cells;
  /** Number of idle blocks that are not shrunk. */
  #idlePages = 0;

  constructor(pages: CachePages, { capacity, ropes = [] }: CacheOptions) {
    this.pages = pages;
    this.#cells = new Cells(pages.cells);
    this.#capacity = capacity;
    this.#ropes = ropes;
  }

  stats(): CacheStats {
    const cached = this.#idlePages + this.#cells.idlePages;
    const used = this.#touched - this.#free.length - cached;
    return {
      capacity: this.#capacity,
      used,
      cached,
      free: this.#capacity - used - cached,
      hitTokens: this.#hitTokens,
      evictions: this.#evictions,
      shrinkable: this.#cells.gain(this.#passed.size),
      shrunk: this.#shrunk,
    };
  }

  /**
   * Full blocks of the index that are not shrunk, each after its parent: blocks in use first, then the others by last
   * use, the latest first.
   */
  fullBlocks(): Block[] {
    const out: Block[] = [];
    const open: Block[] = [];
    const add = (children: readonly Block[]): void => {
      for (const child of children) open.push(child);
    };
    for (const root of this.#roots.values()) add(root.children);
    for (let next = open.pop(); next; next = open.pop()) {
      if (next.users === 0) continue;
      if (next.full && !next.shrunk) out.push(next);
      add(next.children);
    }
    for (let idle = this.#idle.newest; idle; idle = idle.older) if (idle.full && !idle.shrunk) out.push(idle);
    return out;
  }

  /** Removes all blocks that no sequence uses. */
  clear(): void {
    while (this.#idle.oldest) this.#remove(this.#idle.oldest);
  }

  /** The rope set of a sequence of `length` tokens. */
  ropeSet(length: number): number {
    return ropeSet(this.#ropes, length);
  }

  /** The root of a namespace. */
  root(name: string): Root {
    const root = this.#roots.get(name) ?? new Root(name);
    this.#roots.set(name, root);
    return root;
  }

  /** The children of a block, or of a namespace by its name. */
  childrenOf(parent: Block | string): readonly Block[] {
    if (typeof parent === 'string') return this.#roots.get(parent)?.children ?? [];
    return parent.children;
  }

  /** Counts tokens found in the cache. */
  hit(tokens: number): void {
    this.#hitTokens += tokens;
  }

  /**
   * Allocates pages: free ones first, then those of the least recently used blocks.
   * @throws OutOfMemoryError, without allocating any
   */
  async take(count: number): Promise<number[]> {
    let refused: unknown;
    const taken: number[] = [];
    while (taken.length < count) {
      const missing = count - taken.length;
      const growth = refused ? 0 : this.#capacity - this.#touched;
      const idle = this.#idlePages + this.#cells.idlePages;
      if (missing > this.#free.length + growth + idle + this.#cells.gain(this.#passed.size)) {
        for (const page of taken) this.#free.push(page);
        const pageBytes = Math.max(1, this.pages.pageBytes);
        throw refused ?? new OutOfMemoryError('the key/value cache', missing * pageBytes, growth * pageBytes);
      }
      const free = this.#free.pop();
      if (free !== undefined) taken.push(free);
      else if (growth > 0) {
        const pages = Math.min(missing, growth);
        try {
          await this.#grow(pages);
        } catch (error) {
          if (!(error instanceof OutOfMemoryError)) throw error;
          refused = error;
        }
      } else if (this.#passed.size > 0) await this.#shrink();
      else {
        this.#remove(this.#idle.oldest!);
        this.#evictions++;
      }
    }
    return taken;
  }

  /** Notes that a user of a block is several windows beyond it; `unpass` takes it back. */
  pass(block: Block): void {
    block.passed++;
    this.#weigh(block);
  }

  unpass(block: Block): void {
    block.passed--;
    this.#weigh(block);
  }

  #weigh(block: Block): void {
    if (!block.shrunk && block.users > 0 && block.passed === block.users) this.#passed.add(block);
    else this.#passed.delete(block);
  }

  /** Shrinks the oldest block that can. Its page becomes free, or holds cells from now on. */
  async #shrink(): Promise<void> {
    const [block] = this.#passed;
    if (!block) return;
    this.#passed.delete(block);
    const { page } = block;
    const cell = this.#cells.take(page);
    const moves = cell < 0 || Math.floor(cell / this.pages.cells) !== page;
    if (cell >= 0 && moves) {
      // A further user, so that its page is not freed meanwhile.
      block.users++;
      await this.pages.shrink(page, cell);
      block.users--;
      if (block.passed < block.users) {
        // A user was truncated meanwhile and needs the block.
        this.#cells.leave(cell);
        const freed = this.#cells.free(cell);
        if (freed !== undefined) this.#free.push(freed);
        return;
      }
    }
    block.page = -1;
    block.cell = cell;
    this.#shrunk++;
    if (moves) this.#free.push(page);
    if (block.users === 0) this.#idleOrGone(block);
  }

  /** Frees a page that belongs to no block. */
  giveBack(page: number): void {
    this.#free.push(page);
  }

  /** Adds a user to a block, which protects it from eviction. */
  hold(block: Block): void {
    if (block.users++ === 0) {
      if (block.parent) this.#leaveIdle(block);
      this.#cells.use(block.cell);
    }
    this.#weigh(block);
  }

  /** Removes a user from a block. An unused block stays idle in the index, or is freed if it is not in the index. */
  drop(block: Block): void {
    if (--block.users === 0) this.#idleOrGone(block);
    this.#weigh(block);
  }

  #idleOrGone(block: Block): void {
    this.#cells.leave(block.cell);
    if (block.parent) {
      this.#idle.add(block);
      if (!block.shrunk) this.#idlePages++;
    } else this.#release(block);
  }

  #leaveIdle(block: Block): void {
    this.#idle.remove(block);
    if (!block.shrunk) this.#idlePages--;
  }

  /** Frees the page, or the cell, of a block that nobody uses. */
  #release(block: Block): void {
    const page = block.shrunk ? this.#cells.free(block.cell) : block.page;
    if (page !== undefined) this.#free.push(page);
  }

  /**
   * Adds a block that only the caller uses to the index. @returns the block, or an existing block, now used by the
   * caller, whose tokens begin with the same ones
   */
  publish(parent: Block | Root, block: Block): Block {
    const { tokens } = block;
    const match = longestMatch(parent.children, tokens, 0, tokens.length);
    if (match?.shared === tokens.length) {
      this.hold(match.block);
      // A page that is not full could not replace the page of the shrunk block.
      if (match.block.shrunk && !block.shrunk && block.full) this.#restore(match.block, block);
      return match.block;
    }
    insertChild(parent, block);
    // A shorter block with the same tokens is redundant.
    if (match?.shared === match?.block.tokens.length && match?.block.users === 0) this.#remove(match.block);
    return block;
  }

  /** Exchanges the storage of two blocks with the same tokens, so that the shrunk one is whole again. */
  #restore(shrunk: Block, whole: Block): void {
    [shrunk.page, whole.page] = [whole.page, shrunk.page];
    [shrunk.cell, whole.cell] = [whole.cell, shrunk.cell];
    this.#weigh(shrunk);
    this.#weigh(whole);
  }

  /**
   * Removes a block from the index if only one sequence uses it, so that this sequence may write to it.
   * @returns whether it may
   */
  own(block: Block): boolean {
    if (block.users !== 1 || block.children.length > 0) return false;
    if (block.parent) this.#remove(block);
    return true;
  }

  /** As `own`, of a block that was idle. */
  reclaim(block: Block): boolean {
    const owned = this.own(block);
    if (owned) this.#evictions++;
    return owned;
  }

  /** Removes a block and its descendants from the index. Sequences that use them keep them. */
  discard(block: Block): void {
    if (block.parent) this.#remove(block);
  }

  /** Removes a block and its descendants from the index, and frees the pages of unused ones. */
  #remove(block: Block): void {
    const { parent } = block;
    for (const gone of removeTree(block)) {
      if (gone.users > 0) continue;
      this.#leaveIdle(gone);
      this.#release(gone);
    }
    if (parent instanceof Root && parent.children.length === 0) this.#roots.delete(parent.name);
  }

  async #grow(pages: number): Promise<void> {
    const count = this.#touched + pages;
    await this.pages.ensure(count);
    // The lowest page is used first. Another call may have grown the memory meanwhile.
    for (let page = count - 1; page >= this.#touched; page--) this.#free.push(page);
    this.#touched = Math.max(this.#touched, count);
  }
}
