/** Paged attention against its definition in double precision, and the same bits for any chunks, threads and batches. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { appendKvKernel, appendKvName, appendKvRecord } from '../../src/kernels/append-kv.ts';
import { attentionKernel, attentionName, attentionRecord } from '../../src/kernels/attention.ts';
import { PAGE, pageBytes } from '../../src/kernels/kv.ts';
import { bitsOf } from '../../src/kernels/record.ts';
import { exp, tanh } from '../../src/numbers.ts';
import { fromBF16, toBF16 } from '../../src/quant/bf16.ts';
import { asCached, type KvStorage, kvStorages } from '../../src/quant/kv-cache.ts';
import { Arena, assertClose, assertSameBits, type Kernel, randoms, rowStride, runSplit } from './support.ts';

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly window: number;
  readonly cap?: number;
  /** Slopes per head. */
  readonly alibi?: readonly number[];
  readonly bidirectional?: boolean;
  /** Of the cache; default f32. */
  readonly storage?: KvStorage;
}

/** One sequence: its rows from position 0, row-major. */
interface Sequence {
  readonly length: number;
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

const toBf16 = (x: number): number => fromBF16(toBF16(x));

const scaleOf = ({ headDim }: Shape): number => 1 / Math.sqrt(headDim);

function sequence({ heads, kvHeads, headDim }: Shape, length: number, seed: number, factor = 2): Sequence {
  const kv = length * kvHeads * headDim;
  return {
    length,
    q: randoms(length * heads * headDim, seed, factor),
    k: randoms(kv, seed + 1, factor),
    v: randoms(kv, seed + 2),
  };
}

/** Result of each row, and for each value the magnitude that its rounding errors are proportional to. */
function definition(shape: Shape, { length, q, k, v }: Sequence) {
  const { heads, kvHeads, headDim, window, cap, alibi, bidirectional } = shape;
  const [out, size] = [new Float64Array(q.length), new Float64Array(q.length)];
  for (let t = 0; t < length; t++) {
    const [before, behind] = bidirectional ? [(window - 1) / 2, (window - 1) / 2] : [window - 1, 0];
    const first = window ? Math.max(0, t - before) : 0;
    const last = window || !bidirectional ? Math.min(length - 1, t + behind) : length - 1;
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor((head * kvHeads) / heads);
      const kvAt = (p: number): number => (p * kvHeads + kvHead) * headDim;
      const at = (t * heads + head) * headDim;
      const scores: number[] = [];
      let magnitude = 0;
      for (let p = first; p <= last; p++) {
        let sum = 0;
        let absolute = 0;
        const key = kvAt(p);
        for (let d = 0; d < headDim; d++) {
          const product = q[at + d]! * k[key + d]!;
          sum += product;
          absolute += Math.abs(product);
        }
        const scale = Math.fround(scaleOf(shape));
        const bias = alibi ? toBf16(toBf16(alibi[head]!) * toBf16(p)) : 0;
        const score = (sum + bias) * scale;
        scores.push(cap === undefined ? score : cap * tanh(score / cap));
        magnitude = Math.max(magnitude, (absolute + bias) * scale);
      }
      const top = Math.max(...scores);
      const weights = scores.map((score) => exp(score - top));
      const total = weights.reduce((a, b) => a + b);
      const values = weights.map((_, i) => kvAt(first + i));
      for (let d = 0; d < headDim; d++) {
        let sum = 0;
        let absolute = 0;
        for (let i = 0; i < weights.length; i++) {
          const part = (weights[i]! * v[values[i]! + d]!) / total;
          sum += part;
          absolute += Math.abs(part);
        }
        out[at + d] = sum;
        // An error e of a score is one of e relative to its weight; sums over headDim and over a page round as often as
        // they have terms, and there is one correction per page.
        const roundings = 2 * magnitude * headDim + PAGE + last / PAGE + 20;
        size[at + d] = roundings * 2 ** -24 * absolute;
      }
    }
  }
  return { out, size };
}

/** A cache and its kernels. Unwritten memory is filled with NaN. */
class Bench {
  readonly shape: Shape & { readonly storage: KvStorage };
  readonly arena = new Arena(1 << 25);
  readonly #kernels: Record<string, Kernel>;
  readonly #pages: number;
  readonly #pageTables: number[] = [];
  #free = 0;

  constructor(shape: Shape, wide = true) {
    this.shape = { storage: 'f32', ...shape };
    this.#kernels = this.arena.compile((module) => {
      appendKvKernel(module, this.shape);
      attentionKernel(module, { ...this.shape, wide });
    }, wide);
    const bytes = 16 * pageBytes(this.shape);
    this.#pages = this.arena.take(bytes);
    this.arena.f32(this.#pages, bytes / 4).fill(Number.NaN);
  }

  /** A new sequence with pages in shuffled order. */
  open(pages: number): number {
    const numbers = Array.from({ length: pages }, () => (5 * this.#free++ + 3) % 16);
    return this.#pageTables.push(this.arena.putI32(numbers)) - 1;
  }

  /** Appends rows [from, to) of each sequence and attends; the rows' results, one batch after the other. */
  forward(parts: readonly { id: number; rows: Sequence; from: number; to: number }[], threads = 1): Float32Array {
    const { heads, kvHeads, headDim, window } = this.shape;
    const { arena } = this;
    const gather = (name: 'q' | 'k' | 'v', width: number): number =>
      arena.putRows(
        parts.flatMap((part) => [...part.rows[name].subarray(part.from * width, part.to * width)]),
        width,
      );
    const numbers = parts.flatMap(({ id, from, to }) =>
      Array.from({ length: to - from }, (_, i) => [id, from + i] as const),
    );
    const out = arena.take(numbers.length * rowStride(heads * headDim) * 4);
    const common = {
      rows: arena.putI32([numbers.length]),
      sequences: arena.putI32(numbers.map(([id]) => id)),
      positions: arena.putI32(numbers.map(([, position]) => position)),
      tables: arena.putI32(this.#pageTables),
      pageBase: this.#pages,
      pageStride: pageBytes(this.shape),
      kvHeads,
    };
    const [k, v] = [gather('k', kvHeads * headDim), gather('v', kvHeads * headDim)];
    runSplit(
      this.#kernels[appendKvName(this.shape)]!,
      arena.record(appendKvRecord.words({ ...common, k, v })),
      threads,
    );
    const q = gather('q', heads * headDim);
    const scale = bitsOf(scaleOf(this.shape));
    const record = arena.record(attentionRecord.words({ ...common, q, out, heads, window, scale }));
    runSplit(this.#kernels[attentionName({ ...this.shape, wide: false })]!, record, threads);
    return arena.rows(out, numbers.length, heads * headDim);
  }

  /** The whole sequence, rows `chunk` at a time. */
  run(rows: Sequence, chunk: number, threads = 1): Float32Array {
    const id = this.open(Math.ceil(rows.length / PAGE));
    const out = new Float32Array(rows.q.length);
    for (let from = 0; from < rows.length; from += chunk) {
      const part = { id, rows, from, to: Math.min(from + chunk, rows.length) };
      out.set(this.forward([part], threads), from * this.shape.heads * this.shape.headDim);
    }
    return out;
  }
}

const shapes: readonly Shape[] = [
  { heads: 2, kvHeads: 2, headDim: 64, window: 0 },
  { heads: 9, kvHeads: 3, headDim: 16, window: 0 },
  { heads: 4, kvHeads: 1, headDim: 20, window: 70 },
  { heads: 6, kvHeads: 2, headDim: 24, window: 1 },
  { heads: 5, kvHeads: 1, headDim: 80, window: 64 },
  { heads: 4, kvHeads: 1, headDim: 256, window: 20 },
  { heads: 2, kvHeads: 1, headDim: 7, window: 0 },
  { heads: 4, kvHeads: 2, headDim: 24, window: 8, cap: 1.5 },
  { heads: 3, kvHeads: 3, headDim: 8, window: 0, alibi: [0.5, 0.011, 2 ** -0.5] },
];
const bidirectional: readonly Shape[] = [
  { heads: 4, kvHeads: 4, headDim: 16, window: 0, bidirectional: true },
  { heads: 6, kvHeads: 2, headDim: 20, window: 1, bidirectional: true },
  { heads: 2, kvHeads: 2, headDim: 64, window: 9, bidirectional: true },
  { heads: 3, kvHeads: 1, headDim: 8, window: 129, bidirectional: true },
];
const nameOf = (shape: Shape): string => JSON.stringify(shape);

test('attention is what its definition says, for head dimensions, groups and windows of all kinds', () => {
  for (const shape of [...shapes, ...bidirectional]) {
    for (const length of [1, 63, 64, 65, 150]) {
      const rows = sequence(shape, length, length);
      const { out, size } = definition(shape, rows);
      assertClose(new Bench(shape).run(rows, length), out, (i) => size[i]!, `${nameOf(shape)}, ${length} rows`);
    }
  }
});

test('chunks of a prompt, threads and widths of code give the same bits', () => {
  for (const shape of shapes) {
    const rows = sequence(shape, 135, 5);
    const whole = new Bench(shape).run(rows, 135);
    for (const [chunk, threads] of [
      [1, 1],
      [7, 2],
      [64, 3],
      [135, 4],
    ] as const) {
      assertSameBits(
        new Bench(shape).run(rows, chunk, threads),
        whole,
        `${nameOf(shape)}: chunks of ${chunk}, ${threads} threads`,
      );
    }
    assertSameBits(new Bench(shape, false).run(rows, 50, 2), whole, `${nameOf(shape)}: 128 bits`);
  }
});

test('one row on several threads: heads of a group are shared out', () => {
  for (const shape of shapes) {
    const rows = sequence(shape, 70, 9);
    const alone = new Bench(shape).run(rows, 69);
    for (const threads of [2, 3, 4, 8]) {
      const bench = new Bench(shape);
      const id = bench.open(2);
      bench.forward([{ id, rows, from: 0, to: 69 }]);
      const last = bench.forward([{ id, rows, from: 69, to: 70 }], threads);
      assertSameBits(last, alone.slice(-last.length), `${nameOf(shape)}, ${threads} threads`);
    }
  }
});

test('sequences in one batch have the bits they have alone', () => {
  for (const shape of shapes) {
    const [a, b, c] = [sequence(shape, 90, 11), sequence(shape, 33, 12), sequence(shape, 66, 13)];
    const alone = [a, b, c].map((rows) => new Bench(shape).run(rows, rows.length));
    const bench = new Bench(shape);
    const ids = [2, 1, 2].map((pages) => bench.open(pages));
    const width = shape.heads * shape.headDim;
    const part = (n: number, rows: Sequence, from: number, to: number) => ({ id: ids[n]!, rows, from, to });
    bench.forward([part(0, a, 0, 60), part(2, c, 0, 65)]);
    // The rest of a prompt, another one, and a step of decoding.
    const together = bench.forward([part(0, a, 60, 90), part(1, b, 0, 33), part(2, c, 65, 66)], 2);
    const expected = [alone[0]!.slice(60 * width), alone[1]!, alone[2]!.slice(65 * width)].flatMap((x) => [...x]);
    assertSameBits(together, Float32Array.from(expected), nameOf(shape));
  }
});

test('bidirectional: threads, widths of code and other sequences in the batch do not show', () => {
  for (const shape of bidirectional) {
    const rows = [1, 70, 135, 64].map((length, i) => sequence(shape, length, 31 + i));
    const alone = rows.flatMap((one) => [...new Bench(shape).run(one, one.length)]);
    for (const [threads, wide] of [
      [1, true],
      [2, false],
      [3, true],
      [8, true],
    ] as const) {
      const bench = new Bench(shape, wide);
      const parts = rows.map((one) => ({ id: bench.open(3), rows: one, from: 0, to: one.length }));
      assertSameBits(bench.forward(parts, threads), Float32Array.from(alone), `${nameOf(shape)}, ${threads} threads`);
    }
  }
});

test('alibi: positions beyond 256 are rounded to bf16 as its products are', () => {
  const shape: Shape = { heads: 2, kvHeads: 1, headDim: 4, window: 0, alibi: [0.7, 2 ** -0.5] };
  const rows = sequence(shape, 330, 3);
  const { out, size } = definition(shape, rows);
  assertClose(new Bench(shape).run(rows, 330), out, (i) => size[i]!, 'alibi');
});

test('scores far apart: the largest wins, nothing overflows', () => {
  const shape: Shape = { heads: 2, kvHeads: 1, headDim: 16, window: 0 };
  const rows = sequence(shape, 130, 21, 60);
  const { out, size } = definition(shape, rows);
  assertClose(new Bench(shape).run(rows, 130), out, (i) => size[i]!, 'large scores');
  assertSameBits(new Bench(shape).run(rows, 1), new Bench(shape).run(rows, 130, 2), 'large scores, row by row');
});

/** Chunks, threads and vector widths, which must not change the bits. */
const ways = [
  [135, 1, true],
  [1, 2, true],
  [7, 3, false],
  [13, 2, true],
] as const;

test('a cache in f16 or q8_0: the bits of an f32 cache that holds what is left of keys and values', () => {
  for (const storage of kvStorages) {
    for (const shape of shapes.map((one) => ({ ...one, storage }))) {
      // Blocks of q8_0 lie within a head.
      const own = storage === 'q8_0' ? { ...shape, headDim: Math.ceil(shape.headDim / 32) * 32 } : shape;
      const rows = sequence(own, 135, 41);
      const left = { ...rows, k: asCached(storage, rows.k), v: asCached(storage, rows.v) };
      const expected = new Bench({ ...own, storage: 'f32' }).run(left, 135);
      for (const [chunk, threads, wide] of ways)
        assertSameBits(new Bench(own, wide).run(rows, chunk, threads), expected, `${nameOf(own)}, chunks of ${chunk}`);
    }
  }
});

test('values beyond the range of a storage type follow its definition, and do not affect what follows them', () => {
  const hostile = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e6, -1e6, 65519, 2 ** -26, 1e-41];
  for (const storage of kvStorages) {
    const shape: Shape = { heads: 2, kvHeads: 2, headDim: 32, window: 0, storage };
    for (const value of hostile) {
      const rows = sequence(shape, 70, 43);
      rows.k[66 * 64 + 40] = value;
      rows.v[66 * 64 + 3] = value;
      const left = { ...rows, k: asCached(storage, rows.k), v: asCached(storage, rows.v) };
      const expected = new Bench({ ...shape, storage: 'f32' }).run(left, 9, 2);
      const got = new Bench(shape).run(rows, 9, 2);
      for (const [i, e] of expected.entries()) {
        if (Number.isNaN(e)) assert.ok(Number.isNaN(got[i]!), `${storage}, ${value}: value ${i}`);
        else assert.equal(got[i], e, `${storage}, ${value}: value ${i}`);
      }
    }
  }
});
