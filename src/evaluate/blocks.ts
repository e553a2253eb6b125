/**
 * Blocks of the key/value cache, and the index that finds them by their tokens.
 *
 * The index is a tree: the path from a root to a block has the tokens of a text from its beginning, PAGE tokens per block.
 * Only leaves may have fewer. Children are sorted by their tokens and found by binary search, so that a lookup compares
 * tokens and does not rely on hashes.
 */
import { PAGE } from '../backend/backend.ts';

/** PAGE positions of the cache, and the tokens whose keys and values they hold. */
export class Block {
  /** Page number; -1 if the block is shrunk. */
  page: number;
  /** Cell number of a shrunk block (see CachePages.cells); otherwise, and if it needs no cell, -1. */
  cell = -1;
  /** At most PAGE tokens. */
  readonly tokens: number[];
  /** Number of sequences with this block in their page table, and of copies that read it. */
  users = 0;
  /** Number of users that are several windows beyond it. */
  passed = 0;
  /** Parent in the index; undefined if the block is not in the index. */
  parent: Block | Root | undefined;
  readonly children: Block[] = [];
  /** Neighbours in the list of idle blocks. */
  older: Block | undefined;
  newer: Block | undefined;

  constructor(page: number, tokens: number[] = []) {
    this.page = page;
    this.tokens = tokens;
  }

  get shrunk(): boolean {
    return this.page < 0;
  }

  get full(): boolean {
    return this.tokens.length === PAGE;
  }
}

/** The root of a namespace. */
export class Root {
  /** Number of the rope set, a space, and the key that its sequences share. */
  readonly name: string;
  readonly children: Block[] = [];

  constructor(name: string) {
    this.name = name;
  }

  get ropeSet(): number {
    return Number.parseInt(this.name, 10);
  }

  get key(): string {
    return this.name.slice(this.name.indexOf(' ') + 1);
  }
}

/** A block, and the number of its first tokens that match. */
export interface Match {
  readonly block: Block;
  readonly shared: number;
}

/** The child with the longest common prefix with ids[from .. to - 1]; undefined if none has one. */
export function longestMatch(
  children: readonly Block[],
  ids: readonly number[],
  from: number,
  to: number,
): Match | undefined {
  const at = place(children, ids, from, to);
  let best: Match | undefined;
  // In sorted order, the child with the longest common prefix is next to the position of the ids.
  for (const block of [children[at], children[at - 1]]) {
    if (!block) continue;
    const shared = sharedTokens(block.tokens, ids, from, to);
    if (shared > (best?.shared ?? 0)) best = { block, shared };
  }
  return best;
}

/** Adds a block to the children of `parent`, none of which may have the same tokens. */
export function insertChild(parent: Block | Root, block: Block): void {
  parent.children.splice(place(parent.children, block.tokens, 0, block.tokens.length), 0, block);
  block.parent = parent;
}

/** Removes a block and its descendants from the index. @returns them, descendants first */
export function removeTree(block: Block): Block[] {
  const siblings = block.parent!.children;
  siblings.splice(place(siblings, block.tokens, 0, block.tokens.length), 1);
  const out: Block[] = [];
  const open = [block];
  for (let next = open.pop(); next; next = open.pop()) {
    out.push(next);
    next.parent = undefined;
    for (const child of next.children.splice(0)) open.push(child);
  }
  return out.reverse();
}

/** Number of children whose tokens sort before ids[from .. to - 1], of which at most PAGE are compared. */
function place(children: readonly Block[], ids: readonly number[], from: number, to: number): number {
  const end = Math.min(to, from + PAGE);
  let [low, high] = [0, children.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (comesBefore(children[middle]!.tokens, ids, from, end)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function comesBefore(tokens: readonly number[], ids: readonly number[], from: number, to: number): boolean {
  const shared = sharedTokens(tokens, ids, from, to);
  if (from + shared === to) return false;
  return shared === tokens.length || tokens[shared]! < ids[from + shared]!;
}

function sharedTokens(tokens: readonly number[], ids: readonly number[], from: number, to: number): number {
  const most = Math.min(tokens.length, to - from);
  let count = 0;
  while (count < most && tokens[count] === ids[from + count]) count++;
  return count;
}

/**
 * Blocks of the index that no sequence uses, in the order of their last use. Sequences release their last block first, so a
 * block is always older than its parent, and the oldest block is a leaf.
 */
export class IdleBlocks {
  #oldest: Block | undefined;
  #newest: Block | undefined;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  get oldest(): Block | undefined {
    return this.#oldest;
  }

  get newest(): Block | undefined {
    return this.#newest;
  }

  /** Adds a block as the most recently used. */
  add(block: Block): void {
    block.older = this.#newest;
    if (this.#newest) this.#newest.newer = block;
    else this.#oldest = block;
    this.#newest = block;
    this.#count++;
  }

  remove(block: Block): void {
    const { older, newer } = block;
    if (older) older.newer = newer;
    else this.#oldest = newer;
    if (newer) newer.older = older;
    else this.#newest = older;
    block.older = undefined;
    block.newer = undefined;
    this.#count--;
  }
}
