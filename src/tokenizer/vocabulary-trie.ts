/** The bytes of all tokens as a trie in flat arrays: which tokens can continue a text, byte by byte. */
import type { Tokenizer } from './tokenizer.ts';

/**
 * Nodes are numbered level by level from the root, 0; the children of a node are adjacent, ascending by byte. A loop over
 * children thus reads consecutive memory.
 */
export class VocabularyTrie {
  /** The children of node n are the nodes firstChild[n] to firstChild[n + 1] - 1. [nodes + 1] */
  readonly firstChild: Int32Array;
  /** The byte that leads to each node from its parent; 0 for the root. [nodes] */
  readonly bytes: Uint8Array;
  /** The tokens whose bytes end at node n are tokens[firstToken[n]] to tokens[firstToken[n + 1] - 1]. [nodes + 1] */
  readonly firstToken: Int32Array;
  /** Token ids, ascending within a node. */
  readonly tokens: Int32Array;

  constructor(tokenizer: Pick<Tokenizer, 'vocabSize' | 'bytes'>) {
    const { parents, bytes, ends } = insertAll(tokenizer);
    const nodes = parents.length;
    // Sort the inserted nodes by parent, then by byte.
    const [byByte] = grouped(bytes, 256);
    const [byParent, groups] = grouped(parents, nodes, byByte);
    const numbers = new Int32Array(nodes);
    const inserted = new Int32Array(nodes);
    this.firstChild = new Int32Array(nodes + 1);
    this.bytes = new Uint8Array(nodes);
    let next = 1;
    for (let node = 0; node < nodes; node++) {
      const old = inserted[node]!;
      this.firstChild[node] = next;
      this.bytes[node] = bytes[old]!;
      for (let i = groups[old]!; i < groups[old + 1]!; i++) {
        const child = byParent[i]!;
        // The root is its own parent.
        if (child === 0) continue;
        numbers[child] = next;
        inserted[next++] = child;
      }
    }
    this.firstChild[nodes] = next;
    const found = Int32Array.from(ends.keys()).filter((id) => ends[id]! >= 0);
    const [order, firstToken] = grouped(
      found.map((id) => numbers[ends[id]!]!),
      nodes,
    );
    this.firstToken = firstToken;
    this.tokens = order.map((index) => found[index]!);
  }

  /** Number of nodes. */
  get size(): number {
    return this.bytes.length;
  }

  /** The child of `node` for a byte, or -1. */
  child(node: number, byte: number): number {
    let [low, high] = [this.firstChild[node]!, this.firstChild[node + 1]!];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.bytes[middle]! < byte) low = middle + 1;
      else high = middle;
    }
    return low < this.firstChild[node + 1]! && this.bytes[low] === byte ? low : -1;
  }

  /** The tokens whose bytes end at `node`; several tokens of a vocabulary may have the same bytes. */
  tokensAt(node: number): Int32Array {
    return this.tokens.subarray(this.firstToken[node]!, this.firstToken[node + 1]!);
  }
}

/** Inserts all tokens. @returns parents and bytes of the nodes, and for each token the node where it ends, or -1 */
function insertAll(tokenizer: Pick<Tokenizer, 'vocabSize' | 'bytes'>): {
  parents: Int32Array;
  bytes: Uint8Array;
  ends: Int32Array;
} {
  const ends = new Int32Array(tokenizer.vocabSize).fill(-1);
  let room = 1024;
  let [parents, bytes] = [new Int32Array(room), new Uint8Array(room)];
  let table = new Int32Array(4 * room).fill(-1);
  let nodes = 1;
  const slotOf = (parent: number, byte: number): number => {
    const mask = table.length - 1;
    let slot = Math.imul(parent * 256 + byte, 0x9e3779b1) >>> 7;
    for (slot &= mask; table[slot]! >= 0; slot = (slot + 1) & mask) {
      const node = table[slot]!;
      if (parents[node] === parent && bytes[node] === byte) break;
    }
    return slot;
  };
  const grow = (): void => {
    room *= 2;
    const [oldParents, oldBytes] = [parents, bytes];
    parents = new Int32Array(room);
    bytes = new Uint8Array(room);
    parents.set(oldParents);
    bytes.set(oldBytes);
    table = new Int32Array(4 * room).fill(-1);
    for (let node = 1; node < nodes; node++) table[slotOf(parents[node]!, bytes[node]!)] = node;
  };
  for (let id = 0; id < ends.length; id++) {
    const own = tokenizer.bytes(id);
    if (!own) continue;
    let node = 0;
    for (const byte of own) {
      if (nodes === room) grow();
      const slot = slotOf(node, byte);
      if (table[slot]! < 0) {
        parents[nodes] = node;
        bytes[nodes] = byte;
        table[slot] = nodes++;
      }
      node = table[slot]!;
    }
    ends[id] = node;
  }
  return { parents: parents.slice(0, nodes), bytes: bytes.slice(0, nodes), ends };
}

/**
 * Counting sort: indices by ascending key, ties in index order (or that of `order`), and the start of each key's
 * indices.
 */
function grouped(keys: Int32Array | Uint8Array, most: number, order?: Int32Array): [Int32Array, Int32Array] {
  const starts = new Int32Array(most + 1);
  for (const key of keys) starts[key + 1]!++;
  for (let key = 0; key < most; key++) starts[key + 1]! += starts[key]!;
  const next = starts.slice();
  const result = new Int32Array(keys.length);
  for (let i = 0; i < keys.length; i++) {
    const index = order ? order[i]! : i;
    result[next[keys[index]!]!++] = index;
  }
  return [result, starts];
}

const tries = new WeakMap<Tokenizer, VocabularyTrie>();

/** The trie of a tokenizer, built on first use (a fraction of a second for 262,144 tokens). */
export function vocabularyTrie(tokenizer: Tokenizer): VocabularyTrie {
  let trie = tries.get(tokenizer);
  if (!trie) tries.set(tokenizer, (trie = new VocabularyTrie(tokenizer)));
  return trie;
}
