/** Keys and values are written to their page, head and position, and nowhere else. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { PAGE as BACKEND_PAGE } from '../../src/backend/backend.ts';
import { appendKvKernel, appendKvName, appendKvRecord } from '../../src/kernels/append-kv.ts';
import { PAGE, pageBytes } from '../../src/kernels/kv.ts';
import { Arena, randoms, rowStride, runSplit } from './support.ts';

test('appends rows of several sequences to their pages', () => {
  assert.equal(PAGE, BACKEND_PAGE);
  for (const [kvHeads, headDim, threads] of [
    [1, 16, 1],
    [2, 20, 2],
    [3, 24, 3],
    [2, 64, 1],
    [1, 5, 2],
  ] as const) {
    const width = kvHeads * headDim;
    const head = { headDim, storage: 'f32' } as const;
    const [sequences, positions] = [
      [0, 0, 0, 1, 1, 2],
      [62, 63, 64, 0, 1, 130],
    ];
    const tables = [[4, 1], [0], [5, 3, 2]];
    const [k, v] = [randoms(6 * width, 1), randoms(6 * width, 2)];
    const arena = new Arena(1 << 22);
    // Pages of another cache lie in between.
    const stride = 3 * pageBytes({ kvHeads, ...head });
    const base = arena.take(6 * stride);
    const cache = arena.f32(base, (6 * stride) / 4).fill(-7);
    const expected = cache.slice();
    const record = arena.record(
      appendKvRecord.words({
        k: arena.putRows(k, width),
        v: arena.putRows(v, width),
        rows: arena.putI32([6]),
        sequences: arena.putI32(sequences),
        positions: arena.putI32(positions),
        tables: arena.putI32(tables.map((table) => arena.putI32(table))),
        pageBase: base,
        pageStride: stride,
        kvHeads,
      }),
    );
    runSplit(arena.compile((module) => appendKvKernel(module, head))[appendKvName(head)]!, record, threads);
    positions.forEach((position, t) => {
      const page = tables[sequences[t]!]![position >> 6]!;
      for (let head = 0; head < kvHeads; head++) {
        const keys = (page * stride) / 4 + head * PAGE * (headDim + rowStride(headDim));
        const values = keys + PAGE * headDim;
        const place = position % PAGE;
        for (let d = 0; d < headDim; d++) {
          expected[keys + ((place >> 4) * headDim + d) * 16 + (place % 16)] = k[t * width + head * headDim + d]!;
          expected[values + ((d >> 4) * PAGE + place) * 16 + (d % 16)] = v[t * width + head * headDim + d]!;
        }
      }
    });
    assert.deepEqual(cache, expected);
  }
});
