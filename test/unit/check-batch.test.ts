/** Batches that no backend may compute: both refuse them before a kernel runs, and compute the next one. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Batch } from '../../src/backend/backend.ts';
import { PAGE } from '../../src/backend/backend.ts';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { Runner, reference, wasm } from '../models/support.ts';

const MAX_ROWS = 8;
const PAGES = 4;
const of = (...values: number[]): Int32Array => Int32Array.of(...values);

/** Two sequences: three rows of one, two rows of another. */
const good: Batch = {
  tokens: of(1, 2, 3, 4, 5),
  positions: of(0, 1, 2, PAGE - 1, PAGE),
  sequences: of(0, 0, 0, 1, 1),
  pages: [of(0), of(1, 2)],
  wanted: of(2, 4),
};

const manyTables = (count: number): Int32Array[] => Array.from({ length: count }, (_, i) => of(i % PAGES));
const bad: readonly (readonly [string, Partial<Batch>, RegExp])[] = [
  ['no rows', { tokens: of(), positions: of(), sequences: of(), wanted: of() }, /1 to 8 rows, got 0/],
  [
    'more rows than fit',
    { tokens: new Int32Array(9), positions: of(0, 1, 2, 3, 4, 5, 6, 7, 8), sequences: new Int32Array(9) },
    /1 to 8 rows, got 9/,
  ],
  ['fewer positions than tokens', { positions: of(0, 1) }, /expected positions of 5 rows, got 2/],
  ['more sequence indices than tokens', { sequences: new Int32Array(6) }, /expected sequences of 5 rows, got 6/],
  ['fewer token types than tokens', { types: of(0) }, /expected types of 5 rows, got 1/],
  ['more page tables than rows fit', { pages: [...good.pages, ...manyTables(7)] }, /at most 8 sequences, got 9/],
  ['300 page tables', { pages: [...good.pages, ...manyTables(298)] }, /at most 8 sequences, got 300/],
  ['lengths of other sequences', { lengths: of(3) }, /expected lengths of 2 sequences, got 1/],
  ['more wanted rows than fit', { wanted: of(0, 1, 2, 3, 4, 5, 6, 7, 8) }, /at most 8 rows of logits, got 9/],
  ['a wanted row before the first', { wanted: of(-1) }, /wanted row -1 is not in a batch of 5 rows/],
  ['a wanted row behind the last', { wanted: of(5) }, /wanted row 5 is not in a batch of 5 rows/],
  ['a row wanted twice', { wanted: of(2, 2) }, /wanted rows must rise, got 2 after 2/],
  ['wanted rows that fall', { wanted: of(4, 2) }, /wanted rows must rise, got 2 after 4/],
  ['a token id below 0', { tokens: of(1, 2, -3, 4, 5) }, /token id -3 of row 2/],
  ['a token id beyond the vocabulary', { tokens: of(1, 2, 3, 4, 2 ** 30) }, /token id 1073741824 of row 4/],
  ['a position below 0', { positions: of(-1, 0, 1, PAGE - 1, PAGE) }, /position -1 of row 0/],
  ['a sequence that is not there', { sequences: of(0, 0, 0, 2, 2) }, /row 3 has no cache page/],
  ['a sequence below 0', { sequences: of(-1, -1, -1, 1, 1) }, /row 0 has no cache page/],
  ['a position without a page', { positions: of(0, 1, 2, 2 * PAGE, 2 * PAGE + 1) }, /row 3 has no cache page/],
  ['a position twice', { positions: of(0, 1, 1, PAGE - 1, PAGE) }, /row 2 of sequence 0 has position 1 after 1/],
  ['positions with a gap', { positions: of(0, 1, 3, PAGE - 1, PAGE) }, /row 2 of sequence 0 has position 3 after 1/],
  [
    'a sequence whose rows are apart',
    { positions: of(0, PAGE - 1, 1, 2, PAGE), sequences: of(0, 1, 0, 0, 1) },
    /rows of sequence 0 are not neighbours/,
  ],
  ['a page that is not there', { pages: [of(0), of(1, PAGES)] }, /cache page 4: there are 4/],
  ['a page below 0', { pages: [of(-1), of(1, 2)] }, /cache page -1: there are 4/],
  ['a page that two sequences write', { pages: [of(1), of(1, 2)] }, /cache page 1 is written in two places/],
  ['a page that one sequence writes twice', { pages: [of(0), of(1, 1)] }, /cache page 1 is written in two places/],
];

for (const [name, make] of [
  ['reference', reference],
  ['wasm', wasm(2, portable)],
] as const) {
  test(`${name}: bad batches are refused, and the next good one is computed`, async () => {
    const runner = await Runner.open('llama-gqa-f16', make, 'none', MAX_ROWS);
    const { backend } = runner;
    try {
      await backend.cache.ensure(PAGES);
      const before = (await backend.forward(good)).output(1).slice();
      for (const [what, change, message] of bad)
        await assert.rejects(backend.forward({ ...good, ...change }), { code: 'InvalidBatch', message }, what);
      assert.deepEqual((await backend.forward(good)).output(1).slice(), before);
    } finally {
      await runner.close();
    }
  });
}

test('more page table entries than there is room for are refused', async () => {
  const runner = await Runner.open('llama-gqa-f16', wasm(1, portable), 'none', MAX_ROWS);
  try {
    await runner.backend.cache.ensure(PAGES);
    const { tableEntries } = runner.backend.cache;
    const pages = [of(0), new Int32Array(tableEntries).fill(1, 0, 1).fill(2, 1)];
    await assert.rejects(runner.backend.forward({ ...good, pages }), {
      code: 'InvalidBatch',
      message: `more than ${tableEntries} page table entries`,
    });
  } finally {
    await runner.close();
  }
});

for (const [name, make] of [
  ['reference', reference],
  ['wasm', wasm(2, portable)],
] as const) {
  test(`${name}: a page that is only read may be in several tables`, async () => {
    const runner = await Runner.open('llama-gqa-f16', make, 'none', MAX_ROWS);
    const { backend } = runner;
    try {
      await backend.cache.ensure(PAGES);
      for (let at = 0; at < PAGE; at += MAX_ROWS) {
        const positions = Int32Array.from({ length: MAX_ROWS }, (_, i) => at + i);
        const tokens = positions.map((position) => 1 + (position % 20));
        await backend.forward({
          tokens,
          positions,
          sequences: new Int32Array(MAX_ROWS),
          pages: [of(0)],
          wanted: of(),
        });
      }
      const next = { tokens: of(7, 7), positions: of(PAGE, PAGE), sequences: of(0, 1), wanted: of(0, 1) };
      const results = await backend.forward({ ...next, pages: [of(0, 1), of(0, 2)] });
      assert.deepEqual(results.output(0).slice(), results.output(1).slice());
    } finally {
      await runner.close();
    }
  });
}
