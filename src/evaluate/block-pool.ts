/** Pages and blocks of the key/value cache: how many use each, which the index has, and whose pages are given up first. */
import type { CachePages } from '../backend/backend.ts';
import { OutOfMemoryError } from '../errors.ts';
import { type RopeTable, ropeSet } from '../plan/rope.ts';
import { type Block, IdleBlocks, insertChild, longestMatch, Root, removeTree } from './blocks.ts';

export interface CacheOptions {
  /** Most pages. */
  readonly capacity: number;
  /** Rope tables of the plan: keys of one token under different frequencies are different keys. */
  readonly ropes?: readonly RopeTable[];
}

export interface CacheStats {
  /** Pages: all that there may be, those of sequences, those that only the index has, and the rest. */
  readonly capacity: number;
  readonly used: number;
  readonly cached: number;
  readonly free: number;
  /** Tokens that sequences found computed. */
  readonly hitTokens: number;
  /** Blocks whose pages were given to others. */
  readonly evictions: number;
}

export class BlockPool {
  readonly pages: CachePages;
  readonly #capacity: number;
  readonly #ropes: readonly RopeTable[];
  readonly #free: number[] = [];
  readonly #idle = new IdleBlocks();
  readonly #roots = new Map<string, Root>();
  /** Pages that have ever been in use. */
  #touched = 0;
  #hitTokens = 0;
  #evictions = 0;

  constructor(pages: CachePages, { capacity, ropes = [] }: CacheOptions) {
    this.pages = pages;
    this.#capacity = capacity;
    this.#ropes = ropes;
  }

  stats(): CacheStats {
    const cached = this.#idle.count;
    const used = this.#touched - this.#free.length - cached;
    return {
      capacity: this.#capacity,
      used,
      cached,
      free: this.#capacity - used - cached,
      hitTokens: this.#hitTokens,
      evictions: this.#evictions,
    };
  }

  /** Full blocks of the index: those in use, then others, the last used first; each behind the one that it follows. */
  fullBlocks(): Block[] {
    const out: Block[] = [];
    const open: Block[] = [];
    const add = (children: readonly Block[]): void => {
      for (const child of children) open.push(child);
    };
    for (const root of this.#roots.values()) add(root.children);
    for (let next = open.pop(); next; next = open.pop()) {
      if (next.users === 0) continue;
      if (next.full) out.push(next);
      add(next.children);
    }
    for (let idle = this.#idle.newest; idle; idle = idle.older) if (idle.full) out.push(idle);
    return out;
  }

  /** Forgets all blocks that no sequence uses. */
  clear(): void {
    while (this.#idle.oldest) this.#remove(this.#idle.oldest);
  }

  /** Which rope frequencies a sequence of `length` tokens has. */
  ropeSet(length: number): number {
    return ropeSet(this.#ropes, length);
  }

  /** Where texts of a namespace begin. */
  root(name: string): Root {
    const root = this.#roots.get(name) ?? new Root(name);
    this.#roots.set(name, root);
    return root;
  }

  /** The children behind a block of the index, or of a namespace by its name. */
  childrenOf(parent: Block | string): readonly Block[] {
    if (typeof parent === 'string') return this.#roots.get(parent)?.children ?? [];
    return parent.children;
  }

  /** Counts tokens found computed. */
  hit(tokens: number): void {
    this.#hitTokens += tokens;
  }

  /**
   * Pages for the caller alone: unused ones, then those of the blocks that have been idle longest.
   * @throws OutOfMemoryError; nothing is taken then
   */
  async take(count: number): Promise<number[]> {
    let refused: unknown;
    const taken: number[] = [];
    while (taken.length < count) {
      const missing = count - taken.length;
      const growth = refused ? 0 : this.#capacity - this.#touched;
      if (missing > this.#free.length + growth + this.#idle.count) {
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
      } else {
        this.#remove(this.#idle.oldest!);
        this.#evictions++;
      }
    }
    return taken;
  }

  /** Gives a page back that no block has. */
  giveBack(page: number): void {
    this.#free.push(page);
  }

  /** Keeps a block from being evicted. */
  hold(block: Block): void {
    if (block.users++ === 0 && block.parent) this.#idle.remove(block);
  }

  /** Ends a use of a block: what nobody uses stays idle in the index, or is gone. */
  drop(block: Block): void {
    if (--block.users > 0) return;
    if (block.parent) this.#idle.add(block);
    else this.#free.push(block.page);
  }

  /**
   * Puts a block that only the caller uses into the index. @returns that block, or one in use for the caller
   * whose tokens begin with the same ones
   */
  publish(parent: Block | Root, block: Block): Block {
    const { tokens } = block;
    const match = longestMatch(parent.children, tokens, 0, tokens.length);
    if (match?.shared === tokens.length) {
      this.hold(match.block);
      return match.block;
    }
    insertChild(parent, block);
    // A shorter block with the same beginning says nothing more.
    if (match?.shared === match?.block.tokens.length && match?.block.users === 0) this.#remove(match.block);
    return block;
  }

  /**
   * Takes a block out of the index for the only sequence that uses it and may then write to it.
   * @returns whether that is so
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

  /** Takes a block and all that follow it out of the index. Sequences that use them keep them. */
  discard(block: Block): void {
    if (block.parent) this.#remove(block);
  }

  /** Takes a block and all that follow it out of the index, and frees the pages that nobody uses. */
  #remove(block: Block): void {
    const { parent } = block;
    for (const gone of removeTree(block)) {
      if (gone.users > 0) continue;
      this.#idle.remove(gone);
      this.#free.push(gone.page);
    }
    if (parent instanceof Root && parent.children.length === 0) this.#roots.delete(parent.name);
  }

  async #grow(pages: number): Promise<void> {
    const count = this.#touched + pages;
    await this.pages.ensure(count);
    // The lowest is taken first. Another call may have come this far meanwhile.
    for (let page = count - 1; page >= this.#touched; page--) this.#free.push(page);
    this.#touched = Math.max(this.#touched, count);
  }
}
