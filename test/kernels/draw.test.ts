/** Draws by the kernels against their definition, over odd widths, thread splits, cuts, masks and shapes of logits. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Draw } from '../../src/backend/backend.ts';
import { drawFrom } from '../../src/backend/draw.ts';
import { combineSummary } from '../../src/backend/summary.ts';
import { Drawer } from '../../src/backend/wasm/drawer.ts';
import { mapDraw } from '../../src/backend/wasm/lowering/draw-map.ts';
import { binsKernel, EDGE_IDS, edgeKernel, maximaKernel, weightsKernel } from '../../src/kernels/draw.ts';
import { exp } from '../../src/numbers.ts';
import { SUMMARY_CHUNK } from '../../src/plan/step.ts';
import { Arena, noise, runSplit } from './support.ts';

const arena = new Arena(1 << 23);
const THREADS = 5;
const WIDEST = 40_000;
const LINES = SUMMARY_CHUNK / 16;
const kernels = arena.compile((m) => {
  maximaKernel(m, LINES);
  weightsKernel(m, LINES);
  binsKernel(m, LINES);
  edgeKernel(m, LINES);
});
const table = [kernels.draw_maxima!, kernels.draw_weights!, kernels.draw_bins!, kernels.draw_edge!];
const map = mapDraw((_, bytes) => arena.take(bytes), WIDEST, THREADS);
const address = arena.take(WIDEST * 4 + 64);
let passes = 0;

function drawer(width: number, threads: number): Drawer {
  // Rows of other widths lie in the same areas.
  const maskBytes = Math.ceil(width / 32) * 4;
  return new Drawer({
    memory: {
      wasm: arena.memory,
      bytes: (at, length) => new Uint8Array(arena.memory.buffer, at, length),
      i32: (at, length) => arena.i32(at, length),
      f32: (at, length) => arena.f32(at, length),
    },
    map: { ...map, maskBytes },
    kernels: { maxima: 0, weights: 1, bins: 2, edge: 3 },
    width,
    threads: THREADS,
    async walk(tape) {
      passes++;
      runSplit(table[arena.i32(tape, 1)[0]!]!, tape, threads);
    },
  });
}

/** Chunks as the step 'summarize' leaves them. */
function summarize(row: Float32Array): Float32Array {
  const chunks: number[] = [];
  for (let start = 0; start < row.length; start += SUMMARY_CHUNK) {
    const chunk = row.subarray(start, start + SUMMARY_CHUNK);
    const largest = chunk.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    chunks.push(
      largest,
      chunk.reduce((sum, x) => sum + exp(x - largest), 0),
    );
  }
  return Float32Array.from(chunks);
}

/** By the kernels, with `threads` threads; what lies behind the row would win if it were looked at. */
async function byKernels(row: Float32Array, draw: Omit<Draw, 'row'>, threads: number, padding = 1e9): Promise<number> {
  arena.f32(address, Math.ceil(row.length / 16) * 16).fill(padding);
  arena.f32(address, row.length).set(row);
  const id = await drawer(row.length, threads).draw(address, summarize(row), { ...draw, row: 0 });
  assert.deepEqual(arena.f32(address, row.length), row, 'the logits are as before');
  return id;
}

const shapes: Readonly<Record<string, (random: () => number, id: number) => number>> = {
  peaked: (random) => -30 * Math.abs(random()) ** 0.2,
  flat: (random) => random(),
  narrow: (random) => 7 + random() * 1e-5,
  equal: () => 1.5,
  'few values': (random) => Math.round(random() * 3),
  coarse: (random) => Math.round(random() * 64) / 8,
  masked: (random, id) => (id % 3 === 0 ? random() * 9 : Number.NEGATIVE_INFINITY),
  wide: (random) => random() * 3e38,
  rising: (_, id) => id / 1000,
  'one above': (random, id) => (id === 17 ? 50 : random()),
  zeros: (random, id) => (id % 2 ? -0 : random() < 0.9 ? 0 : 2),
  subnormal: (random) => random() * 1e-40,
};

const rowOf = (shape: string, width: number, seed: number): Float32Array => {
  const random = noise(seed);
  return Float32Array.from({ length: width }, (_, id) => shapes[shape]!(random, id));
};

const widths = [1, 2, 15, 16, 17, 31, 33, 1000, 1023, 1024, 1025, 2500, 5000];

const drawArbitrary = fc.record({
  temperature: fc.constantFrom(0, 1, 0.7, 2, 1e-3, 1e-300, 50, 1e300),
  topK: fc.constantFrom(0, 0, 1, 2, 3, 40, 900, 3000, 10_000_000),
  topP: fc.constantFrom(1, 1, 0.9, 0.5, 0.05, 0.999, 1e-9, 1 - 2 ** -53),
  minP: fc.constantFrom(0, 0, 0, 0.1, 1, 1e-9, 0.5),
  uniform: fc.constantFrom(0, 0.1, 0.5, 0.9, 0.999999, 1 - 2 ** -53),
});

test('the same token as the definition, whatever the threads', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.keys(shapes)),
      fc.constantFrom(...widths),
      fc.nat(1000),
      drawArbitrary,
      fc.constantFrom('none', 'some', 'few'),
      fc.boolean(),
      async (shape, width, seed, cuts, masks, changes) => {
        const row = rowOf(shape, width, seed);
        const random = noise(seed + 1);
        const mask = Uint32Array.from({ length: Math.ceil(width / 32) }, () =>
          masks === 'few' && random() < 0.9 ? 0 : (random() * 2 ** 31) >>> 0,
        );
        const ids = Int32Array.from(new Set(Array.from({ length: 5 }, () => Math.floor(Math.abs(random()) * width))));
        const logits = Float32Array.from(ids, (_, i) => (i === 1 ? Number.NEGATIVE_INFINITY : random() * 20));
        const draw = {
          ...cuts,
          ...(masks !== 'none' && { mask }),
          ...(changes && { changed: { ids, logits } }),
        };
        const expected = drawFrom(row, draw);
        for (const threads of [1, 2, THREADS])
          assert.equal(await byKernels(row, draw, threads), expected, `${threads} threads`);
      },
    ),
    { numRuns: 300 },
  );
});

test('bins that hold more candidates than a list are divided again; equal logits are cut by id', async () => {
  const width = WIDEST - 3;
  for (const shape of ['flat', 'equal', 'few values', 'narrow', 'one above']) {
    const row = rowOf(shape, width, 3);
    // Most of the row in one bin, and not equal.
    if (shape === 'one above') for (let id = 0; id < width; id++) if (id !== 17) row[id]! *= 1e-4;
    for (const cuts of [{ topP: 0.7 }, { topK: 9000 }, { topK: 20_000, topP: 0.3, minP: 0.2 }]) {
      const draw = { temperature: 8, topK: 0, topP: 1, minP: 0, uniform: 0.77, ...cuts };
      passes = 0;
      assert.equal(await byKernels(row, draw, 2), drawFrom(row, draw), `${shape} ${JSON.stringify(cuts)}`);
      assert.ok(passes >= 3, `${passes}`);
    }
  }
  assert.ok(width > 2 * THREADS * EDGE_IDS, 'wide enough to fill the lists');
});

test('what lies behind a row does not count, NaN neither', async () => {
  for (const padding of [Number.NaN, Number.POSITIVE_INFINITY, 1e9, Number.NEGATIVE_INFINITY]) {
    for (const width of [17, 1025]) {
      const row = rowOf('flat', width, 9);
      for (const cuts of [{}, { topP: 0.5 }, { topK: 1000 }, { temperature: 0 }]) {
        const draw = { temperature: 1, topK: 0, topP: 1, minP: 0, uniform: 0.999, ...cuts };
        assert.equal(await byKernels(row, draw, 2, padding), drawFrom(row, draw));
      }
    }
  }
});

test('nothing is left where everything is masked', async () => {
  const row = rowOf('flat', 100, 1);
  const draw = { temperature: 1, topK: 3, topP: 0.5, minP: 0, uniform: 0.5 };
  assert.equal(await byKernels(row, { ...draw, mask: new Uint32Array(4) }, 2), -1);
  // Bits beyond the row are nobody's.
  assert.equal(await byKernels(row, { ...draw, mask: Uint32Array.of(0, 0, 0, 0xfffffff0) }, 2), -1);
  assert.equal(await byKernels(row.fill(Number.NEGATIVE_INFINITY), draw, 2), -1);
});

test('chunks say where the largest logits are', () => {
  const row = rowOf('flat', 3000, 4);
  row[2047] = row[2999] = 9;
  const { chunk, chunks, largest } = combineSummary(summarize(row));
  assert.deepEqual([chunk, largest, chunks[2], chunks[4]], [1, 9, 9, 9]);
});
