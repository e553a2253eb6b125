/** The summary of logits: chunks against their definition, and their combination. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { combineSummary } from '../../src/backend/summary.ts';
import { summarizeKernel, summarizeRecord } from '../../src/kernels/summarize.ts';
import { exp } from '../../src/numbers.ts';
import { Arena, assertClose, assertSameBits, randoms, rowStride, runSplit } from './support.ts';

const CHUNK = 64;

/** The chunks of each row, computed by `threads` threads. */
function summarize(x: Float32Array, width: number, threads: number): Float32Array {
  const [rows, chunks] = [x.length / width, Math.ceil(width / CHUNK)];
  const arena = new Arena(1 << 20);
  const out = arena.take(rows * rowStride(2 * chunks) * 4);
  // Padding that would be the largest value if it were read.
  const words = { x: arena.putRows(x, width, 1e9), out, rows: arena.putI32([rows]), width };
  runSplit(
    arena.compile((m) => summarizeKernel(m, CHUNK)).summarize!,
    arena.record(summarizeRecord.words(words)),
    threads,
  );
  return arena.rows(out, rows, 2 * chunks);
}

test('largest value and sum of exponentials of each chunk, whatever the threads', () => {
  for (const width of [1, 15, 16, 17, 63, 64, 65, 200, 333]) {
    const rows = 3;
    const x = randoms(rows * width, width, 9);
    const got = summarize(x, width, 1);
    for (const threads of [2, 3, 8]) assertSameBits(summarize(x, width, threads), got, `${threads} threads`);
    const expected: number[] = [];
    for (let row = 0; row < rows; row++) {
      for (let start = 0; start < width; start += CHUNK) {
        const chunk = [...x.subarray(row * width + start, row * width + Math.min(width, start + CHUNK))];
        const largest = Math.max(...chunk);
        expected.push(
          largest,
          chunk.reduce((sum, value) => sum + exp(value - largest), 0),
        );
      }
    }
    assertClose(got, expected, (i) => (i % 2 ? 1e-6 * expected[i]! : 0), `width ${width}`);
  }
});

test('chunks combine to the largest logit, its position, and the logarithm of the sum', () => {
  const width = 300;
  const x = randoms(width, 5, 9);
  // Twice: the first counts.
  x[130] = x[290] = 12;
  const { largest, chunk, logSumExp } = combineSummary(summarize(x, width, 2));
  assert.deepEqual([largest, chunk], [12, 2]);
  const exact = 12 + Math.log(x.reduce((sum, value) => sum + Math.exp(value - 12), 0));
  assert.ok(Math.abs(logSumExp - exact) < 1e-6, `${logSumExp} beside ${exact}`);
});

test('masked logits are ignored; NaN and Infinity are found anywhere', () => {
  const width = 200;
  const masked = new Float32Array(width).fill(Number.NEGATIVE_INFINITY);
  assert.equal(combineSummary(summarize(masked, width, 1)).largest, Number.NEGATIVE_INFINITY);
  masked[150] = 3;
  const { largest, chunk, logSumExp } = combineSummary(summarize(masked, width, 1));
  assert.deepEqual([largest, chunk, logSumExp], [3, 2, 3]);
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const at of [0, 63, 64, 150, 199]) {
      const x = randoms(width, 7);
      x[at] = bad;
      assert.ok(!Number.isFinite(combineSummary(summarize(x, width, 1)).largest), `${bad} at ${at}`);
    }
  }
});
