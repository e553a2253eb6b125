/** Saved caches: what comes back, and what is refused before anything is taken. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { type CachePages, PAGE, type PageReport } from '../../src/backend/backend.ts';
import { Checksum } from '../../src/backend/checksum.ts';
import type { Model } from '../../src/engine/model.ts';
import { FormatError } from '../../src/errors.ts';
import { Cache } from '../../src/evaluate/cache.ts';
import { memorySource } from '../../src/formats/bytes.ts';
import { load } from '../../src/node.ts';
import type { RopeTable } from '../../src/plan/rope.ts';
import type { GenerateResult } from '../../src/schedule/events.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const greedy = { temperature: 0, maxTokens: 6, ignoreEos: true, logprobs: 1 };
const ids = (count: number, seed = 0): number[] => Array.from({ length: count }, (_, i) => 3 + ((i * i + seed) % 90));

async function folderOf(t: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-cache-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

const answer = ({ tokenIds, usage }: GenerateResult): object => ({ tokenIds, ...usage });

const settings = [
  ['llama3-rope-bf16', {}, 200, 192],
  ['llama3-rope-bf16', { kvCache: 'f16', quantize: 'q8_0' }, 200, 192],
  ['llama3-rope-bf16', { kvCache: 'q8_0' }, 200, 192],
  ['llama3-rope-bf16', { backend: 'reference' }, 70, 64],
  ['mistral-window', {}, 130, 128],
  ['phi3-longrope', {}, 100, 64],
] as const;

for (const [name, options, length, whole] of settings) {
  test(`${name} ${JSON.stringify(options)}: a prompt is warm after a restart, to the bit`, async (t) => {
    const file = path.join(await folderOf(t), 'cache.bin');
    // One of them in a thread of its own.
    const inline = name !== 'mistral-window';
    let cold: GenerateResult;
    {
      await using model = await load(golden(name), { threads: 1, inline, ...options });
      cold = await model.complete({ tokenIds: ids(length) }, greedy);
      await model.complete({ tokenIds: ids(20, 1) }, greedy);
      assert.equal(cold.usage.cachedTokens, 0);
      const { tokens, bytes } = await model.saveCache(file);
      assert.deepEqual([tokens, bytes], [whole, (await readFile(file)).length]);
    }
    await using model = await load(golden(name), { threads: 2, inline, ...options });
    const { tokens } = await model.restoreCache(file);
    assert.equal(tokens, whole);
    assert.equal(model.stats().pages.cached, whole / PAGE);
    const warm = await model.complete({ tokenIds: ids(length) }, greedy);
    assert.deepEqual(answer(warm), { ...answer(cold), cachedTokens: whole });
    // What is there already is not taken again.
    assert.equal((await model.restoreCache(file)).tokens, 0);
    assert.equal(model.stats().pages.used, 0);
  });
}

test('a smaller cache takes what was used last; requests go on while a cache is saved and restored', async (t) => {
  const file = path.join(await folderOf(t), 'cache.bin');
  const run = async (model: Model, seed: number): Promise<number[]> => [
    ...(await model.complete({ tokenIds: ids(150, seed) }, { ...greedy, maxTokens: 20 })).tokenIds,
  ];
  const expected: number[][] = [];
  {
    await using model = await load(golden('llama3-rope-bf16'), { threads: 1, inline: true });
    for (const seed of [1, 2, 3]) expected.push(await run(model, seed));
    await run(model, 1);
    const [again] = await Promise.all([run(model, 2), model.saveCache(file)]);
    assert.deepEqual(again, expected[1]);
  }
  await using model = await load(golden('llama3-rope-bf16'), {
    threads: 1,
    contextLength: 200,
    inline: true,
    cacheTokens: 5 * PAGE,
  });
  const [beside, { tokens }] = await Promise.all([run(model, 3), model.restoreCache(file)]);
  assert.deepEqual(beside, expected[2]);
  assert.ok(tokens <= 5 * PAGE);
  model.stats();
  assert.deepEqual(await run(model, 2), expected[1]);
  assert.equal(model.stats().pages.used, 0);
});

test('files of other models, and no files at all, are refused', async (t) => {
  const folder = await folderOf(t);
  const file = path.join(folder, 'cache.bin');
  const options = { threads: 1, inline: true } as const;
  {
    await using model = await load(golden('llama3-rope-bf16'), options);
    await model.complete({ tokenIds: ids(100) }, greedy);
    await model.saveCache(file);
    await assert.rejects(model.saveCache(path.join(folder, 'nowhere', 'cache.bin')), { code: 'ENOENT' });
    await assert.rejects(model.restoreCache(path.join(folder, 'nowhere')), { code: 'NotAFile' });
    await assert.rejects(model.restoreCache(fileURLToPath(import.meta.url)), { code: 'NotACache' });
  }
  assert.deepEqual(await readdir(folder), ['cache.bin']);
  for (const other of [{ quantize: 'q8_0' }, { kvCache: 'f16' }, { backend: 'reference' }] as const) {
    await using model = await load(golden('llama3-rope-bf16'), { ...options, ...other });
    await assert.rejects(model.restoreCache(file), { code: 'OtherModel' });
  }
  // The same names, shapes and types, and a few other values.
  const copy = path.join(folder, 'copy');
  await cp(golden('llama3-rope-bf16'), copy, { recursive: true });
  const weights = path.join(copy, 'model.safetensors');
  const bytes = await readFile(weights);
  const header = 8 + Number(bytes.readBigUInt64LE(0));
  for (let at = header; at + 1 < bytes.length; at += 2) bytes[at] = bytes[at]! ^ 1;
  await writeFile(weights, bytes);
  await using model = await load(copy, options);
  const before = model.stats().pages;
  await assert.rejects(model.restoreCache(file), { code: 'OtherModel' });
  assert.deepEqual(model.stats().pages, before);
});

/** Pages of one number for each position, which is one for each text. */
class NumberPages implements CachePages {
  readonly pageBytes = PAGE * 4;
  readonly capacity = 40;
  readonly tableEntries = 1000;
  readonly window = 0;
  readonly cells: number = 1;
  count = 0;
  readonly values: Float32Array[] = [];
  /** Takes everything for finite. */
  blind = false;

  async ensure(count: number): Promise<void> {
    while (this.values.length < count) this.values.push(new Float32Array(PAGE));
    this.count = Math.max(this.count, count);
  }

  async shrink(): Promise<void> {}

  async copy(from: number, to: number): Promise<void> {
    this.values[to]!.set(this.values[from]!);
  }

  async read(page: number): Promise<Uint8Array> {
    return new Uint8Array(this.values[page]!.slice().buffer);
  }

  async fill(page: number, source: (start: number, target: Uint8Array) => Promise<void>): Promise<void> {
    await source(0, new Uint8Array(this.values[page]!.buffer));
  }

  async inspect(page: number): Promise<PageReport> {
    const at = this.blind ? -1 : this.values[page]!.findIndex((value) => !Number.isFinite(value));
    const checksum = new Checksum().add(new Uint8Array(this.values[page]!.buffer)).value;
    return { checksum, notFinite: at < 0 ? undefined : 4 * at };
  }
}

const longRope: RopeTable = {
  name: 'rope',
  rotary: 2,
  frequencies: Float32Array.of(1),
  magnitude: 1,
  long: { above: 200, frequencies: Float32Array.of(2) },
};

interface Small {
  readonly cache: Cache;
  readonly pages: NumberPages;
  readonly context: Parameters<Cache['restore']>[0];
  add(tokens: readonly number[], key?: string): Promise<void>;
  save(): Promise<Uint8Array<ArrayBuffer>>;
}

const keyOf = (token: number, position: number, set: number): number => token + position / 64 + 1000 * set;

function small(): Small {
  const pages = new NumberPages();
  const cache = new Cache(pages, { capacity: pages.capacity, ropes: [longRope] });
  const context: Small['context'] = {
    fingerprint: '0123456789abcdef'.repeat(2),
    vocab: 100,
    exclusive: (work) => work(),
    compute: (page, token, set) =>
      set > 1 ? undefined : Promise.resolve().then(() => void (pages.values[page]![0] = keyOf(token, 0, set))),
  };
  return {
    cache,
    pages,
    context,
    async add(tokens, key) {
      const sequence = cache.sequence({ key });
      const from = await sequence.reuse(tokens);
      await sequence.reserve(tokens.length);
      for (let p = from; p < tokens.length; p++)
        pages.values[sequence.table()[Math.floor(p / PAGE)]!]![p % PAGE] = keyOf(
          tokens[p]!,
          p,
          tokens.length > 200 ? 1 : 0,
        );
      sequence.append(tokens.slice(from));
      sequence.release();
    },
    async save() {
      const parts: Uint8Array[] = [];
      await cache.save(context, async (bytes) => void parts.push(bytes.slice()));
      return new Uint8Array(Buffer.concat(parts));
    },
  };
}

async function filled(): Promise<Uint8Array<ArrayBuffer>> {
  const from = small();
  await from.add(ids(140));
  await from.add([...ids(64), ...ids(80, 5)], '');
  await from.add(ids(70), 'tenant ä');
  await from.add(ids(230));
  return from.save();
}

test('texts, keys and rope sets come back as they were', async () => {
  const bytes = await filled();
  const to = small();
  const { tokens } = await to.cache.restore(to.context, memorySource('file', bytes));
  assert.equal(tokens, (2 + 1 + 1 + 3) * PAGE);
  for (const [text, key, found] of [
    [ids(140), '', 128],
    [[...ids(64), ...ids(80, 5)], '', 128],
    [ids(140), 'tenant ä', 64],
    [ids(140), 'other', 0],
    [ids(230), '', 192],
  ] as const) {
    const sequence = to.cache.sequence({ key });
    assert.equal(await sequence.reuse(text), found);
    for (let p = 0; p < found; p++) {
      const value = to.pages.values[sequence.table()[Math.floor(p / PAGE)]!]![p % PAGE];
      assert.equal(value, Math.fround(keyOf(text[p]!, p, text.length > 200 ? 1 : 0)));
    }
    sequence.release();
  }
  const empty = await small().save();
  assert.deepEqual(await to.cache.restore(to.context, memorySource('file', empty)), { tokens: 0, bytes: 0 });
  // What was restored is saved again as it was.
  assert.deepEqual(await to.save(), bytes);
});

test('numbers that are not finite are neither saved nor restored', async () => {
  const from = small();
  await from.add(ids(200));
  from.pages.values[1]![3] = Number.NaN;
  const bytes = await from.save();
  const to = small();
  assert.equal((await to.cache.restore(to.context, memorySource('file', bytes))).tokens, PAGE);
  // A file that others made.
  const good = small();
  await good.add(ids(200));
  good.pages.blind = true;
  good.pages.values[1]![3] = Number.NaN;
  const bad = await good.save();
  const clean = small();
  await assert.rejects(clean.cache.restore(clean.context, memorySource('file', bad)), (error) => {
    assert.ok(error instanceof FormatError && error.code === 'NotFinite');
    assert.equal(error.offset, 4096 + PAGE * 4 + 12);
    assert.match(error.message, /^file at byte 4364: a key or value is not finite; save it again$/);
    return true;
  });
  assert.equal(clean.cache.stats().free, 40);
});

/** A file with other words, and the checksum of the index made right again. */
function forged(bytes: Uint8Array, change: (view: DataView, index: number) => void): Uint8Array<ArrayBuffer> {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const tail = copy.length - 24;
  const index = 4096 + view.getUint32(tail + 8, true) * PAGE * 4;
  change(view, index);
  const sum = new Checksum().add(copy.subarray(index, tail + 12)).value;
  view.setUint32(tail + 12, sum, true);
  return copy;
}

test('hostile files are refused with the place, and nothing is taken', async () => {
  const bytes = await filled();
  const names = 'tenant ä';
  const nameBytes = 3 * 8 + new TextEncoder().encode(names).length;
  const tail = bytes.length - 24;
  const rows: readonly (readonly [code: string, (view: DataView, index: number) => void, offset?: number])[] = [
    ['NotACache', (view) => view.setUint8(0, 0), 0],
    ['UnsupportedVersion', (view) => view.setUint32(8, 2, true), 8],
    ['OtherModel', (view) => view.setUint8(20, 0x66), 16],
    ['InvalidLength', (view) => view.setUint32(12, 128, true), 12],
    ['InvalidLength', (view) => view.setUint8(tail + 20, 0), bytes.length - 8],
    ['InvalidLength', (view) => view.setUint32(tail + 8, 2 ** 32 - 1, true), tail],
    ['InvalidLength', (view) => view.setUint32(tail + 8, 0, true), tail],
    ['InvalidLength', (view) => view.setUint32(tail + 4, 2 ** 31, true), tail],
    ['TooMany', (view) => view.setUint32(tail, 2 ** 31, true), tail],
    ['InvalidLength', (view, index) => view.setUint32(index + 4, 2 ** 32 - 1, true)],
    ['InvalidLength', (view) => view.setUint32(tail, 2, true)],
    ['InvalidIndex', (view, index) => view.setInt32(index + nameBytes, 0, true)],
    ['InvalidIndex', (view, index) => view.setInt32(index + nameBytes, -9, true)],
    ['InvalidIndex', (view, index) => view.setInt32(index + nameBytes + 264, 5000, true)],
    ['InvalidIndex', (view, index) => view.setInt32(index + nameBytes + 8, -1, true)],
    ['InvalidIndex', (view, index) => view.setInt32(index + nameBytes + 8 + 63 * 4, 100, true)],
    ['InvalidChecksum', (view) => view.setFloat32(4096, 7, true), 4096],
    ['InvalidChecksum', (view, index) => view.setUint32(index + nameBytes + 4, 7, true), 4096],
    // A rope set that the model does not have.
    ['InvalidIndex', (view, index) => view.setUint32(index, 9, true)],
  ];
  for (const [code, change, offset] of rows) {
    const to = small();
    await assert.rejects(to.cache.restore(to.context, memorySource('some file', forged(bytes, change))), (error) => {
      assert.ok(error instanceof FormatError, String(error));
      assert.equal(error.code, code, error.message);
      assert.match(error.message, /^some file/);
      if (offset !== undefined) assert.equal(error.offset, offset, error.message);
      return true;
    });
    assert.deepEqual([to.cache.stats().used, to.cache.stats().cached], [0, 0]);
    assert.ok(to.pages.count <= 1, 'pages are taken for bytes that are right only');
  }
  // The same page twice, in a file that says so consistently.
  const to = small();
  const twice = forged(bytes, (view, index) => {
    for (let i = 0; i < 264; i++) view.setUint8(index + nameBytes + 264 + i, view.getUint8(index + nameBytes + i));
  });
  await assert.rejects(to.cache.restore(to.context, memorySource('file', twice)), { code: /DuplicateKey|Invalid/ });
});

test('a file that was cut or changed anywhere is refused, or means the same', async () => {
  const bytes = await filled();
  const whole = small();
  await whole.cache.restore(whole.context, memorySource('file', bytes));
  const expected = whole.cache.stats();
  const change = fc.oneof(
    fc.record({ cut: fc.integer({ min: 0, max: bytes.length - 1 }) }),
    fc.record({ at: fc.integer({ min: 0, max: bytes.length - 1 }), flip: fc.integer({ min: 1, max: 255 }) }),
    // The part behind the pages is the smaller one.
    fc.record({
      at: fc.integer({ min: 4096 + 7 * 256, max: bytes.length - 1 }),
      flip: fc.integer({ min: 1, max: 255 }),
    }),
  );
  await fc.assert(
    fc.asyncProperty(change, async (how) => {
      const to = small();
      const changed = 'cut' in how ? bytes.slice(0, how.cut) : bytes.slice();
      if ('at' in how) changed[how.at] = changed[how.at]! ^ how.flip;
      try {
        await to.cache.restore(to.context, memorySource('file', changed));
        assert.ok('at' in how && how.at >= 48 && how.at < 4096, 'only what nobody reads may change');
        assert.deepEqual(to.cache.stats(), expected);
      } catch (error) {
        assert.ok(error instanceof FormatError, String(error));
        assert.deepEqual([to.cache.stats().used, to.cache.stats().cached], [0, 0]);
      }
    }),
    { numRuns: 400 },
  );
});
