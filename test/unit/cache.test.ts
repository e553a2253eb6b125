/** The cache beside a simple model of it: every page holds what its tokens say, and none is lost. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { type CachePages, PAGE } from '../../src/backend/backend.ts';
import { LanewiseError, OutOfMemoryError } from '../../src/errors.ts';
import { Cache } from '../../src/evaluate/cache.ts';
import type { Sequence } from '../../src/evaluate/sequence.ts';
import type { RopeTable } from '../../src/plan/rope.ts';

/** Pages whose positions say which text they were computed for. */
class TextPages implements CachePages {
  readonly pageBytes = PAGE * 8;
  readonly capacity: number;
  readonly tableEntries = Number.POSITIVE_INFINITY;
  count = 0;
  readonly texts: string[][] = [];
  /** What caches without a window have. */
  readonly cellTexts = new Map<number, string[]>();
  readonly window: number;
  readonly cells: number;
  /** Growth beyond is refused. */
  refusedAt = Number.POSITIVE_INFINITY;

  constructor(capacity: number, { window = 0, cells = 1 } = {}) {
    this.capacity = capacity;
    this.window = window;
    this.cells = cells;
  }

  write(page: number, position: number, text: string): void {
    this.texts[page]![position] = text;
    this.cell(page * this.cells)[position] = text;
    // Other cells would lie in the same bytes.
    for (let n = 1; n < this.cells; n++) this.cellTexts.delete(page * this.cells + n);
  }

  cell(cell: number): string[] {
    const known = this.cellTexts.get(cell) ?? [];
    this.cellTexts.set(cell, known);
    return known;
  }

  async shrink(page: number, cell: number): Promise<void> {
    await turn();
    this.cellTexts.set(cell, [...this.cell(page * this.cells)]);
    this.texts[Math.floor(cell / this.cells)] = [];
  }

  async ensure(count: number): Promise<void> {
    await turn();
    assert.ok(count <= this.capacity, 'more pages than there may be');
    if (count > this.refusedAt) throw new OutOfMemoryError('pages', count, this.refusedAt);
    while (this.texts.length < count) this.texts.push([]);
    this.count = Math.max(this.count, count);
  }

  async copy(from: number, to: number): Promise<void> {
    await turn();
    for (const [position, text] of this.texts[from]!.entries()) this.write(to, position, text);
  }

  read(): Promise<Uint8Array> {
    throw new Error('not asked for here');
  }

  inspect(): never {
    throw new Error('not asked for here');
  }

  fill(): Promise<void> {
    throw new Error('not asked for here');
  }
}

const longRope: RopeTable = {
  name: 'rope',
  rotary: 2,
  frequencies: Float32Array.of(1),
  magnitude: 1,
  long: { above: 150, frequencies: Float32Array.of(2) },
};

/** Stands for the keys of the last token of a text: other frequencies, other keys. */
const keysOf = (long: boolean, key: string, ids: readonly number[]): string => `${long} ${key} ${ids.join(',')}`;

/** What one sequence should be. */
interface Expected {
  readonly sequence: Sequence;
  readonly key: string;
  tokens: number[];
  long: boolean;
  /** At least so many tokens. */
  expected: number;
}

class Bench {
  readonly pages: TextPages;
  readonly cache: Cache;
  readonly live: Expected[] = [];
  /** Texts that have been computed, while none has been given up. */
  readonly computed: { readonly namespace: string; readonly tokens: readonly number[] }[] = [];
  forgets = false;
  readonly rope: boolean;

  constructor(capacity: number, rope: boolean, windows: { window?: number; cells?: number } = {}) {
    this.pages = new TextPages(capacity, windows);
    this.rope = rope;
    this.cache = new Cache(this.pages, { capacity, ropes: rope ? [longRope] : [] });
  }

  start(key: string): void {
    const sequence = this.cache.sequence({ key });
    this.live.push({ sequence, key, tokens: [], long: false, expected: 0 });
  }

  isLong(length: number): boolean {
    return this.rope && length > 150;
  }

  async reuse(state: Expected, ids: readonly number[]): Promise<void> {
    const { sequence } = state;
    const long = this.isLong(ids.length);
    const own = long === state.long ? state.tokens : [];
    // What the sequence itself gives up may be found again.
    this.note(state);
    const length = await sequence.reuse(ids);
    assert.equal(length, sequence.length);
    const { evictions, shrunk } = this.cache.stats();
    assert.ok(length < ids.length && (shrunk > 0 || length >= Math.min(shared(own, ids), ids.length - 1)));
    const namespace = `${long} ${state.key}`;
    const known = this.computed.flatMap((text) => (text.namespace === namespace ? [shared(text.tokens, ids)] : []));
    const whole = Math.floor(Math.min(Math.max(0, ...known), ids.length - 1) / PAGE) * PAGE;
    if (!this.forgets && evictions === 0 && shrunk === 0) assert.ok(length >= whole, `${length} of ${whole} found`);
    state.tokens = ids.slice(0, length);
    state.long = long;
    state.expected = ids.length;
  }

  /** As the engine does: pages, a forward that writes them, and what it says of it. */
  async compute(state: Expected, ids: readonly number[]): Promise<void> {
    const { sequence } = state;
    const span = Math.max(state.expected, state.tokens.length + ids.length);
    const crosses = this.isLong(span) !== state.long;
    assert.equal(sequence.crosses(ids.length), crosses);
    if (crosses) return this.reuse(state, [...state.tokens, ...ids]);
    const before = this.tables();
    try {
      await sequence.reserve(state.tokens.length + ids.length);
    } catch (error) {
      assert.ok(error instanceof OutOfMemoryError);
      if (this.pages.cells === 1) assert.deepEqual(this.tables(), before);
      return;
    }
    const table = sequence.table();
    for (const id of ids) {
      state.tokens.push(id);
      const position = state.tokens.length - 1;
      const page = table[Math.floor(position / PAGE)]!;
      const users = this.live.filter((_, n) => this.tables()[n]!.includes(page));
      assert.deepEqual(users, [state], 'a page of others is written');
      this.pages.write(page, position % PAGE, keysOf(state.long, state.key, state.tokens));
    }
    sequence.append(ids);
    this.note(state);
  }

  truncate(state: Expected, length: number): void {
    this.note(state);
    state.sequence.truncate(length);
    assert.ok(state.sequence.length === length || (state.sequence.length === 0 && this.cache.stats().shrunk > 0));
    state.tokens = state.tokens.slice(0, state.sequence.length);
    state.expected = 0;
    // A block that was cut to be written again is no longer found.
    this.forgets = true;
  }

  end(state: Expected, discard: boolean): void {
    this.note(state);
    this.live.splice(this.live.indexOf(state), 1);
    if (discard) {
      this.forgets = true;
      state.sequence.discard();
    } else state.sequence.release();
    assert.equal(state.sequence.length, 0);
  }

  note({ tokens, long, key }: Expected): void {
    this.computed.push({ namespace: `${long} ${key}`, tokens: [...tokens] });
  }

  tables(): number[][] {
    return this.live.map(({ sequence }) => {
      const cells = sequence.cells();
      const pages = [...sequence.table()];
      const held = pages.map((page, i) => (page < 0 && cells ? Math.floor(cells[i]! / this.pages.cells) : page));
      return held.filter((page) => page >= 0);
    });
  }

  check(): void {
    for (const { sequence, key, tokens, long } of this.live) {
      assert.deepEqual(sequence.tokens, tokens);
      const table = sequence.table();
      const cells = sequence.cells();
      const { window } = this.pages;
      for (const position of tokens.keys()) {
        const index = Math.floor(position / PAGE);
        const expected = keysOf(long, key, tokens.slice(0, position + 1));
        const seen = this.pages.cells === 1 || position >= tokens.length - window;
        if (seen) assert.equal(this.pages.texts[table[index]!]![position % PAGE], expected);
        if (cells) assert.equal(this.pages.cell(cells[index]!)[position % PAGE], expected);
      }
    }
    const { capacity, used, cached, free } = this.cache.stats();
    assert.equal(used, new Set(this.tables().flat()).size);
    assert.equal(used + cached + free, capacity);
    assert.ok(cached >= 0 && free >= 0);
  }

  /** All pages can be had again. */
  async finish(): Promise<void> {
    for (const state of [...this.live]) this.end(state, false);
    this.check();
    const { capacity } = this.cache.stats();
    const all = this.cache.sequence();
    await all.reserve(capacity * PAGE);
    assert.deepEqual(
      [...all.table()].sort((a, b) => a - b),
      [...Array(capacity).keys()],
    );
    all.release();
    assert.deepEqual(
      { ...this.cache.stats(), hitTokens: 0, evictions: 0, shrunk: 0 },
      { capacity, used: 0, cached: 0, free: capacity, hitTokens: 0, evictions: 0, shrinkable: 0, shrunk: 0 },
    );
  }
}

function shared(a: readonly number[], b: readonly number[]): number {
  let count = 0;
  while (count < a.length && count < b.length && a[count] === b[count]) count++;
  return count;
}

/** Texts that have much in common: runs of equal tokens. */
const text = fc
  .tuple(
    fc.integer({ min: 0, max: 8 }),
    fc.array(fc.integer({ min: 0, max: 1 }), { maxLength: 3 }),
    fc.integer({ min: 1, max: 40 }),
  )
  .map(([same, runs, last]) => [
    ...Array<number>(24 * same).fill(0),
    ...runs.flatMap((id) => Array<number>(24).fill(id)),
    ...Array<number>(last).fill(3),
  ]);

const command = fc.oneof(
  fc.record({ op: fc.constant('start' as const), key: fc.constantFrom('', '', '', 'other') }),
  fc.record({ op: fc.constant('start' as const), key: fc.constant('') }),
  fc.record({ op: fc.constant('read' as const), which: fc.nat(), text }),
  fc.record({ op: fc.constant('read' as const), which: fc.nat(), text }),
  fc.record({ op: fc.constant('rows' as const), which: fc.nat(), count: fc.integer({ min: 1, max: 70 }) }),
  fc.record({ op: fc.constant('truncate' as const), which: fc.nat(), back: fc.integer({ min: 1, max: 80 }) }),
  fc.record({ op: fc.constantFrom('release' as const, 'release' as const, 'discard' as const), which: fc.nat() }),
  fc.constant({ op: 'clear' as const }),
);

test('whatever sequences do, pages hold what their tokens say, and none is lost or written by two', async () => {
  const settings = fc.record({
    capacity: fc.integer({ min: 1, max: 24 }),
    rope: fc.boolean(),
    windows: fc.constantFrom({}, {}, { window: 5, cells: 4 }, { window: 70, cells: 3 }, { window: 40, cells: 0 }),
    commands: fc.array(command, { minLength: 5, maxLength: 50 }),
  });
  await fc.assert(
    fc.asyncProperty(settings, async ({ capacity, rope, windows, commands }) => {
      const bench = new Bench(capacity, rope, windows);
      bench.start('');
      for (const action of commands) {
        if (action.op === 'start') bench.start(action.key);
        else if (action.op === 'clear') {
          bench.cache.clear();
          bench.forgets = true;
          assert.equal(bench.cache.stats().cached, 0);
        } else {
          const state = bench.live[action.which % Math.max(1, bench.live.length)];
          if (!state) continue;
          if (action.op === 'read') {
            await bench.reuse(state, action.text);
            bench.check();
            await bench.compute(state, action.text.slice(state.tokens.length));
          } else if (action.op === 'rows') await bench.compute(state, Array<number>(action.count).fill(1));
          else if (action.op === 'truncate') bench.truncate(state, Math.max(0, state.tokens.length - action.back));
          else bench.end(state, action.op === 'discard');
        }
        bench.check();
      }
      await bench.finish();
    }),
    { numRuns: 600 },
  );
});

/** A cache whose sequences can be filled at once. */
function cacheOf(capacity: number): { cache: Cache; pages: TextPages; fill: Fill } {
  const pages = new TextPages(capacity);
  const cache = new Cache(pages, { capacity });
  const fill: Fill = async (ids, key) => {
    const sequence = cache.sequence({ key });
    await sequence.reuse(ids);
    await sequence.reserve(ids.length);
    sequence.append(ids.slice(sequence.length));
    return sequence;
  };
  return { cache, pages, fill };
}

type Fill = (ids: readonly number[], key?: string) => Promise<Sequence>;

const ids = (count: number, first = 0): number[] => Array.from({ length: count }, (_, i) => (i < 1 ? first : i));

test('blocks are shared while their first sequence runs, and keys keep sequences apart', async () => {
  const { cache, fill } = cacheOf(20);
  const first = await fill(ids(200));
  const second = cache.sequence();
  assert.equal(await second.reuse(ids(200)), 192, 'whole blocks');
  assert.deepEqual([...second.table()], [...first.table()].slice(0, 3));
  assert.equal(cache.stats().used, 4);
  const other = cache.sequence({ key: 'tenant' });
  assert.equal(await other.reuse(ids(200)), 0);
  // The last block is not full: it is copied once its sequence has ended.
  first.release();
  assert.equal(await second.reuse(ids(220)), 200);
  assert.equal(cache.stats().hitTokens, 200);
  // The last token of a text is computed in any case.
  assert.equal(await second.reuse(ids(192)), 191);
});

test('what was used last stays; a block never goes before those that follow it', async () => {
  const { cache, fill } = cacheOf(6);
  for (const first of [1, 2]) (await fill(ids(190, first))).release();
  (await fill(ids(65, 1))).release();
  // Two more pages are asked for: the last blocks of both texts go, and the first ones stay.
  (await fill(ids(64 * 2, 3))).release();
  assert.equal(cache.stats().evictions, 2);
  const found = async (text: readonly number[]): Promise<number> => {
    const sequence = cache.sequence();
    const length = await sequence.reuse(text);
    sequence.release();
    return length;
  };
  for (const first of [1, 2, 3]) assert.equal(await found(ids(190, first)), 128);
  (await fill(ids(64 * 3, 4))).release();
  assert.deepEqual([await found(ids(190, 1)), await found(ids(190, 2))], [0, 64]);
});

test('where no page is left, a sequence fails and loses nothing; one that nobody uses is continued in place', async () => {
  const { cache, fill } = cacheOf(3);
  const first = await fill(ids(100));
  const second = cache.sequence();
  await assert.rejects(second.reserve(2 * PAGE), OutOfMemoryError);
  assert.equal(second.table().length, 0);
  await second.reserve(PAGE);
  assert.equal(first.length, 100);
  first.release();
  second.release();
  const third = await fill(ids(150));
  assert.equal(third.length, 150);
  assert.equal(cache.stats().hitTokens, 100);
  third.release();
  const fourth = cache.sequence();
  assert.equal(await fourth.reuse(ids(140)), 139, 'in the page that it was computed in');
  assert.deepEqual(cache.stats(), {
    capacity: 3,
    used: 3,
    cached: 0,
    free: 0,
    hitTokens: 239,
    evictions: 2,
    shrinkable: 0,
    shrunk: 0,
  });
});

test('growth that is refused takes pages that nobody uses, and is tried again later', async () => {
  const { cache, pages, fill } = cacheOf(8);
  pages.refusedAt = 2;
  (await fill(ids(128))).release();
  const second = await fill(ids(100, 7));
  assert.equal(cache.stats().evictions, 2);
  await assert.rejects(cache.sequence().reserve(1), OutOfMemoryError);
  pages.refusedAt = 8;
  await second.reserve(8 * PAGE);
});

test('a sequence released while it waits for pages gives them back', async () => {
  const { cache, fill } = cacheOf(8);
  (await fill(ids(100))).release();
  for (const wait of [(s: Sequence) => s.reserve(PAGE), (s: Sequence) => s.reuse(ids(90))]) {
    for (let turns = 0; turns < 4; turns++) {
      const sequence = cache.sequence();
      const pending = wait(sequence).catch((error: unknown) => assert.ok(error instanceof LanewiseError));
      for (let n = 0; n < turns; n++) await turn();
      sequence.release();
      await pending;
      assert.equal(cache.stats().used, 0);
    }
  }
  await (await fill(ids(8 * PAGE, 5))).reserve(8 * PAGE);
});

test('what a sequence had is forgotten where its numbers are not finite; others that use it go on', async () => {
  const { cache, fill } = cacheOf(20);
  const first = await fill(ids(200));
  const second = await fill(ids(150));
  const third = await fill([...ids(128), ...ids(100, 8)]);
  third.discard();
  const fourth = cache.sequence();
  assert.equal(await fourth.reuse(ids(200)), 192, 'what it computed itself, not what it found');
  fourth.release();
  first.discard();
  assert.equal(second.length, 150);
  assert.equal(await cache.sequence().reuse(ids(200)), 0);
  await second.reserve(300);
  second.append(ids(150, 9));
  second.release();
  assert.deepEqual(cache.stats().used, 0);
  assert.equal(await cache.sequence().reuse(ids(200)), 0);
});

test('a hundred and thirty thousand pages come and go', async () => {
  const { cache } = cacheOf(130_000);
  const sequence = cache.sequence();
  await sequence.reserve(130_000 * PAGE);
  assert.equal(sequence.table().length, 130_000);
  sequence.append(Array.from({ length: 10_000 * PAGE }, (_, i) => i % 50_000));
  sequence.release();
  assert.deepEqual([cache.stats().used, cache.stats().cached], [0, 10_000]);
  cache.clear();
  assert.equal(cache.stats().free, 130_000);
  // Many neighbours in the index.
  for (let i = 0; i < 20_000; i++) {
    const short = cache.sequence();
    await short.reserve(1);
    short.append([i]);
    short.release();
  }
  assert.equal(cache.stats().cached, 20_000);
});
