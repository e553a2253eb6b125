/**
 * Saves cached blocks to a file, so that a long system prompt is computed once for all runs of a program. All numbers are
 * little-endian:
 *
 *   0      "lanewise", u32 version, u32 bytes per page, 32 bytes: fingerprint of plan and backend, as hexadecimal digits
 *   4096   pages, in the backend's layout, without gaps
 *          namespaces: u32 rope set, u32 bytes of the key, the key in UTF-8
 *          for each page: i32 the page before it in its text, or -1 - namespace; u32 its checksum; PAGE times i32 token id
 *          u32 namespaces, u32 bytes of all namespaces, u32 pages, u32 checksum of everything after the pages, "eisewnal"
 *
 * Pages are ordered by last use, the latest first, but after the pages that precede them in their text: a smaller cache
 * takes as many as it can hold. Only full blocks are saved.
 */
import { PAGE } from '../backend/backend.ts';
import { Checksum } from '../backend/checksum.ts';
import type { FormatErrorCode } from '../error-codes.ts';
import { FormatError } from '../errors.ts';
import type { ByteSource } from '../formats/bytes.ts';
import type { BlockPool } from './block-pool.ts';
import { Block, insertChild, longestMatch, Root } from './blocks.ts';

const VERSION = 1;
const HEAD_MARK = 'lanewise';
const TAIL_MARK = 'eisewnal';
const HEAD_BYTES = 4096;
const ROW_BYTES = 8 + 4 * PAGE;
const TAIL_BYTES = 24;
/** Bytes per read or write, at least one page. */
const CHUNK = 16 * 2 ** 20;

/** The cache of a model, and what identifies the model. */
export interface CacheFileContext {
  readonly pool: BlockPool;
  /** 32 hexadecimal digits. */
  readonly fingerprint: string;
  readonly vocab: number;
  /** Runs `work` while no forward runs. */
  exclusive<T>(work: () => Promise<T>): Promise<T>;
  /** Computes one token at position 0 into a page. Undefined if the model has no such rope set. */
  compute(page: number, token: number, ropeSet: number): Promise<void> | undefined;
}

export interface CacheFileContent {
  readonly tokens: number;
  readonly bytes: number;
}

/**
 * Writes all full blocks of the index, used or not. Forwards may run meanwhile. Blocks that are evicted before they are
 * written, or have values that are not finite, are left out with their descendants.
 */
export async function writeCache(
  { pool, fingerprint, exclusive }: CacheFileContext,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<CacheFileContent> {
  const { pageBytes } = pool.pages;
  const out = new Output(write);
  const head = new Uint8Array(HEAD_BYTES);
  head.set(new TextEncoder().encode(`${HEAD_MARK}........${fingerprint}`));
  new DataView(head.buffer).setUint32(8, VERSION, true);
  new DataView(head.buffer).setUint32(12, pageBytes, true);
  await out.add(head);
  const written = new Map<Block | Root, number>();
  const roots: Root[] = [];
  const rows: Int32Array[] = [];
  for (const block of pool.fullBlocks()) {
    const { parent } = block;
    // The block or an ancestor has been evicted meanwhile.
    if (!parent || (parent instanceof Block && !written.has(parent))) continue;
    pool.hold(block);
    let checksum = 0;
    try {
      const [report, bytes] = await exclusive(async () => [
        await pool.pages.inspect(block.page),
        await pool.pages.read(block.page),
      ]);
      if (report.notFinite !== undefined) continue;
      checksum = report.checksum;
      await out.add(bytes);
    } finally {
      pool.drop(block);
    }
    if (parent instanceof Root && !written.has(parent)) written.set(parent, -roots.push(parent));
    written.set(block, rows.push(Int32Array.of(written.get(parent)!, checksum, ...block.tokens)) - 1);
  }
  const names = roots.map(({ ropeSet, key }) => ({ ropeSet, key: new TextEncoder().encode(key) }));
  const nameBytes = names.reduce((sum, { key }) => sum + 8 + key.length, 0);
  const tail = new Uint8Array(nameBytes + rows.length * ROW_BYTES + TAIL_BYTES);
  const view = new DataView(tail.buffer);
  let at = 0;
  const u32 = (value: number): void => {
    view.setUint32(at, value, true);
    at += 4;
  };
  for (const { ropeSet, key } of names) {
    u32(ropeSet);
    u32(key.length);
    tail.set(key, at);
    at += key.length;
  }
  for (const row of rows) for (const value of row) u32(value);
  u32(names.length);
  u32(nameBytes);
  u32(rows.length);
  u32(new Checksum().add(tail.subarray(0, at)).value);
  tail.set(new TextEncoder().encode(TAIL_MARK), at);
  await out.add(tail);
  return { tokens: rows.length * PAGE, bytes: await out.end() };
}

/** Buffers small pieces for writing. */
class Output {
  readonly #write: (bytes: Uint8Array) => Promise<void>;
  #pieces: Uint8Array[] = [];
  #waiting = 0;
  #written = 0;

  constructor(write: (bytes: Uint8Array) => Promise<void>) {
    this.#write = write;
  }

  async add(bytes: Uint8Array): Promise<void> {
    this.#pieces.push(bytes);
    this.#waiting += bytes.length;
    if (this.#waiting >= CHUNK) await this.end();
  }

  /** @returns bytes written */
  async end(): Promise<number> {
    const whole = new Uint8Array(this.#waiting);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [];
    this.#waiting = 0;
    await this.#write(whole);
    this.#written += whole.length;
    return this.#written;
  }
}

/** A page of a file. */
interface FileBlock {
  readonly index: number;
  readonly block: Block;
  readonly parent: FileBlock | Root;
  readonly checksum: number;
}

/**
 * Adds the blocks of a file that the cache does not have, as many as it has room for, or none if the file is invalid. Bytes
 * are checked before pages are allocated, and the first token of each namespace is computed again: with other weights or
 * kernels its bits would differ.
 * @throws FormatError; OutOfMemoryError if the system refuses memory
 */
export async function readCache(context: CacheFileContext, source: ByteSource): Promise<CacheFileContent> {
  const { pool } = context;
  const blocks = await readIndex(context, source);
  await proveBits(context, source, blocks);
  /** The block of the cache for each block of the file; held until all are added. */
  const held = new Map<FileBlock, Block>();
  try {
    for (const entry of blocks) {
      const parent = entry.parent instanceof Root ? entry.parent.name : held.get(entry.parent);
      const match = parent !== undefined && longestMatch(pool.childrenOf(parent), entry.block.tokens, 0, PAGE);
      if (!match || match.shared < PAGE) continue;
      pool.hold(match.block);
      held.set(entry, match.block);
    }
    const { capacity, used } = pool.stats();
    const missing = blocks.filter((entry) => !held.has(entry)).slice(0, capacity - used);
    const pages = await pool.take(missing.length);
    for (const [i, entry] of missing.entries()) {
      const block = new Block(pages[i]!, entry.block.tokens);
      block.users = 1;
      held.set(entry, block);
    }
    await readPages(context, source, missing, held);
    for (const entry of missing) {
      const parent = entry.parent instanceof Root ? pool.root(entry.parent.name) : held.get(entry.parent)!;
      // Meanwhile sequences may have computed the same blocks, or removed some.
      if (parent instanceof Block && !parent.parent) continue;
      const block = held.get(entry)!;
      const shown = pool.publish(parent, block);
      if (shown === block) continue;
      held.set(entry, shown);
      pool.drop(block);
    }
    return { tokens: missing.length * PAGE, bytes: missing.length * pool.pages.pageBytes };
  } finally {
    for (const block of [...held.values()].reverse()) pool.drop(block);
  }
}

/** Reads and checks namespaces, tokens and order of a file's pages. @throws FormatError */
async function readIndex({ pool, fingerprint, vocab }: CacheFileContext, source: ByteSource): Promise<FileBlock[]> {
  const { name, byteLength } = source;
  const fail = (code: FormatErrorCode, offset: number, what: string): never => {
    throw new FormatError(code, name, what, { offset });
  };
  if (byteLength < HEAD_BYTES + TAIL_BYTES)
    fail('HeaderTooSmall', byteLength, `expected a saved cache, found only ${byteLength} bytes; save it again`);
  const text = new TextDecoder('latin1');
  const head = await source.read(0, 48);
  if (text.decode(head.subarray(0, 8)) !== HEAD_MARK)
    fail('NotACache', 0, 'expected a saved cache, found another file');
  const [version, pageBytes] = new Uint32Array(head.buffer, 8, 2) as unknown as [number, number];
  if (version !== VERSION)
    fail('UnsupportedVersion', 8, `expected version ${VERSION}, found ${version}; save it again`);
  if (text.decode(head.subarray(16)) !== fingerprint) fail('OtherModel', 16, otherModel);
  if (pageBytes !== pool.pages.pageBytes)
    fail('InvalidLength', 12, `expected pages of ${pool.pages.pageBytes} bytes, found ${pageBytes}`);
  const tail = await source.read(byteLength - TAIL_BYTES, byteLength);
  const [namespaces, nameBytes, pages, sum] = new Uint32Array(tail.buffer, 0, 4) as unknown as number[];
  if (text.decode(tail.subarray(16)) !== TAIL_MARK)
    fail('InvalidLength', byteLength - 8, 'expected the end of a saved cache, found something else; save it again');
  const indexAt = HEAD_BYTES + pages! * pageBytes;
  const length = indexAt + nameBytes! + pages! * ROW_BYTES + TAIL_BYTES;
  if (length !== byteLength)
    fail('InvalidLength', byteLength - TAIL_BYTES, `expected ${length} bytes for ${pages} pages, found ${byteLength}`);
  if (namespaces! > pages!) fail('TooMany', byteLength - TAIL_BYTES, `${namespaces} namespaces of ${pages} pages`);
  const index = await source.read(indexAt, byteLength - TAIL_BYTES + 12);
  if (new Checksum().add(index).value !== sum)
    fail('InvalidChecksum', indexAt, 'wrong checksum of the index; save it again');
  const view = new DataView(index.buffer);
  const roots: Root[] = [];
  let at = 0;
  for (let n = 0; n < namespaces!; n++) {
    const bytes = at + 8 <= nameBytes! ? view.getUint32(at + 4, true) : Number.POSITIVE_INFINITY;
    if (at + 8 + bytes > nameBytes!)
      fail('InvalidLength', indexAt + at, 'a namespace extends beyond the end of all namespaces');
    const key = utf8(index.subarray(at + 8, at + 8 + bytes));
    if (key === undefined) fail('InvalidUtf8', indexAt + at + 8, 'the key of a namespace is not valid UTF-8');
    const root = new Root(`${view.getUint32(at, true)} ${key}`);
    if (roots.some(({ name }) => name === root.name)) fail('DuplicateKey', indexAt + at, 'a namespace is repeated');
    roots.push(root);
    at += 8 + bytes;
  }
  if (at !== nameBytes) fail('InvalidLength', indexAt + at, 'expected the end of all namespaces, found more');
  const blocks: FileBlock[] = [];
  for (let n = 0; n < pages!; n++, at += ROW_BYTES) {
    const before = view.getInt32(at, true);
    const parent = before < 0 ? roots[-1 - before] : blocks[before];
    if (!parent)
      return fail('InvalidIndex', indexAt + at, `page ${n} follows ${before}, which does not come before it`);
    const tokens = Array.from({ length: PAGE }, (_, i) => view.getInt32(at + 8 + 4 * i, true));
    const wrong = tokens.findIndex((id) => id < 0 || id >= vocab);
    if (wrong >= 0)
      fail('InvalidIndex', indexAt + at + 8 + 4 * wrong, `token id ${tokens[wrong]}: ids are 0 to ${vocab - 1}`);
    const block = new Block(n, tokens);
    const above = parent instanceof Root ? parent : parent.block;
    if (longestMatch(above.children, tokens, 0, PAGE)?.shared === PAGE)
      fail('DuplicateKey', indexAt + at, `page ${n} has the tokens of an earlier one`);
    insertChild(above, block);
    blocks.push({ index: n, block, parent, checksum: view.getUint32(at + 4, true) });
  }
  const empty = roots.find(({ children }) => children.length === 0);
  if (empty) fail('TooMany', indexAt, 'a namespace has no pages');
  return blocks;
}

const otherModel =
  'it was saved with another model, other storage of weights or cache, or another version of the kernels; save it again';

/** @throws FormatError OtherModel if computing the first token of a namespace gives other bits */
async function proveBits(context: CacheFileContext, source: ByteSource, blocks: readonly FileBlock[]): Promise<void> {
  const { pool, exclusive, compute } = context;
  const { pages } = pool;
  const proved = new Set<Root>();
  for (const entry of blocks) {
    const { index, block, parent } = entry;
    const at = HEAD_BYTES + index * pages.pageBytes;
    if (!(parent instanceof Root) || proved.has(parent)) continue;
    proved.add(parent);
    const [page] = (await pool.take(1)) as [number];
    try {
      const { checksum } = await exclusive(async () => {
        await fillPage(context, source, entry, page);
        const computed = compute(page, block.tokens[0]!, parent.ropeSet);
        if (!computed) throw new FormatError('InvalidIndex', source.name, 'no such rope frequencies in this model');
        await computed;
        return pages.inspect(page);
      });
      if (checksum !== entry.checksum) throw new FormatError('OtherModel', source.name, otherModel, { offset: at });
    } finally {
      pool.giveBack(page);
    }
  }
}

/** Reads several pages at once, so that reading and checking overlap. @throws FormatError */
async function readPages(
  context: CacheFileContext,
  source: ByteSource,
  missing: readonly FileBlock[],
  held: ReadonlyMap<FileBlock, Block>,
): Promise<void> {
  const most = Math.max(1, Math.floor(CHUNK / context.pool.pages.pageBytes));
  for (let start = 0; start < missing.length; start += most) {
    const entries = missing.slice(start, start + most);
    await context.exclusive(async () => {
      const filled = entries.map((entry) => fillPage(context, source, entry, held.get(entry)!.page));
      // All reads must end before the pages are given to others.
      await Promise.allSettled(filled);
      await Promise.all(filled);
    });
  }
}

/** @throws FormatError InvalidChecksum, NotFinite */
async function fillPage({ pool }: CacheFileContext, file: ByteSource, entry: FileBlock, page: number): Promise<void> {
  const offset = HEAD_BYTES + entry.index * pool.pages.pageBytes;
  await pool.pages.fill(page, (start, target) => file.readInto(offset + start, target));
  const { checksum, notFinite } = await pool.pages.inspect(page);
  if (checksum !== entry.checksum)
    throw new FormatError('InvalidChecksum', file.name, 'wrong checksum of the page; save it again', {
      offset,
    });
  if (notFinite === undefined) return;
  const place = { offset: offset + notFinite };
  throw new FormatError('NotFinite', file.name, 'a key or value is not finite; save it again', place);
}

function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
