/** How many tokens are guessed, at costs that the test decides. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Drafter, DraftRequest } from '../../src/drafting/drafter.ts';
import { Drafts } from '../../src/drafting/drafts.ts';
import { chooseLengths } from '../../src/drafting/lengths.ts';
import { RowTimes } from '../../src/drafting/row-times.ts';
import { checkSameTokens } from '../../src/engine/same-tokens.ts';
import { Sampler } from '../../src/sampling/sampler.ts';
import { validateSampling } from '../../src/sampling/sampling-options.ts';

interface World {
  /** Milliseconds of a forward, by its rows; of one more guess; of a token that the drafter reads. */
  readonly stepMs: (rows: number) => number;
  readonly guessMs: number;
  readonly readMs: number;
  /** Whether guess `i` of the draft made in step `step` is right. */
  right(step: number, i: number): boolean;
}

const request = (): { history: number[] } & DraftRequest => ({
  history: [1, 2, 3],
  sampler: new Sampler(validateSampling({ temperature: 0 })),
  cacheKey: '',
});

/** Steps of requests that decode together. @returns milliseconds a token, beside those without drafts, and the lengths */
async function run(world: World, steps: number, requests = 1): Promise<{ gain: number; lengths: number[][] }> {
  const { stepMs, guessMs, readMs } = world;
  let clock = 0;
  let tokens = 0;
  const read = new Map<DraftRequest, number>();
  const unread = (of: DraftRequest): number => of.history.length - (read.get(of) ?? 0);
  const drafter: Drafter = {
    name: 'test',
    async draft(wishes) {
      for (const { request: of } of wishes) {
        clock += readMs * unread(of);
        read.set(of, of.history.length);
      }
      clock += guessMs * Math.max(...wishes.map(({ most }) => most));
      return wishes.map(({ most }) => Array(most).fill(7));
    },
    readingMs: (of) => readMs * unread(of),
    release() {},
    async dispose() {},
  };
  const drafts = new Drafts({ drafters: [drafter], vocab: 10, now: () => clock });
  const all = Array.from({ length: requests }, request);
  const lengths: number[][] = [];
  for (let step = 0; step < steps; step++) {
    const wishes = all.map((each) => ({ request: each, most: 16 }));
    const { drafts: given } = await drafts.guess(wishes, requests, 64);
    const rows = all.reduce((sum, each) => sum + 1 + (given.get(each)?.length ?? 0), 0);
    clock += stepMs(rows);
    lengths.push(all.map((each) => given.get(each)?.length ?? 0));
    for (const each of all) {
      const length = given.get(each)?.length ?? 0;
      let accepted = 0;
      while (accepted < length && world.right(step, accepted)) accepted++;
      each.history.push(...Array(accepted + 1).fill(7));
      tokens += accepted + 1;
      if (length > 0) drafts.judge(each, accepted, false);
    }
    drafts.record(rows, rows - requests, stepMs(rows));
  }
  return { gain: (tokens * stepMs(requests)) / requests / clock, lengths };
}

const memoryBound = (rows: number): number => 10 * (1 + 0.03 * (rows - 1));

test('good drafts become long, and pay', async () => {
  const world = { stepMs: memoryBound, guessMs: 1, readMs: 0.2 };
  const always = await run({ ...world, right: () => true }, 200);
  assert.ok(always.gain > 4, `${always.gain}`);
  assert.equal(Math.max(...always.lengths.flat()), 16);
  const often = await run({ ...world, right: (step, i) => (step * 7 + i * 3) % 10 < 8 }, 200);
  assert.ok(often.gain > 1.8, `${often.gain}`);
});

test('bad drafts stop, at a loss of less than 2 %; where they become good, they come again', async () => {
  for (const readMs of [0, 0.2, 1]) {
    const world = { stepMs: memoryBound, guessMs: 2.5, readMs };
    const bad = await run({ ...world, right: () => false }, 300);
    assert.ok(bad.gain > 0.98, `${bad.gain} with ${readMs} ms a token read`);
    assert.ok(bad.lengths.slice(20).flat().filter(Boolean).length < 15);
  }
  const better = await run({ stepMs: memoryBound, guessMs: 1, readMs: 0, right: (step) => step > 200 }, 900);
  assert.ok(better.lengths.slice(-50).flat().filter(Boolean).length > 40, 'drafts again');
});

test('right drafts that cost more than they save are not made', async () => {
  const slow = await run({ stepMs: memoryBound, guessMs: 12, readMs: 0, right: () => true }, 300);
  assert.ok(slow.gain > 0.96, `${slow.gain}`);
  assert.ok(slow.lengths.slice(20).flat().filter(Boolean).length < 10);
  const computeBound = await run({ stepMs: (rows) => 10 * rows, guessMs: 1, readMs: 0, right: () => true }, 300);
  assert.ok(computeBound.gain > 0.96, `${computeBound.gain}`);
  assert.ok(computeBound.lengths.slice(40).flat().filter(Boolean).length < 20);
});

test('of two drafters, the one that is right more often guesses, and the first one where both are', async () => {
  let clock = 0;
  const calls = [0, 0];
  const drafter = (index: number, token: (step: number) => number, ms: number): Drafter => ({
    name: `drafter ${index}`,
    async draft(wishes) {
      calls[index]!++;
      clock += ms;
      return wishes.map(({ most }) => Array(most).fill(token(step)));
    },
    readingMs: () => 0,
    release() {},
    async dispose() {},
  });
  let step = 0;
  const free = drafter(0, (at) => (at < 300 ? 1 : 7), 0);
  const dear = drafter(1, () => 7, 1);
  const drafts = new Drafts({ drafters: [free, dear], vocab: 10, now: () => clock });
  const one = request();
  for (; step < 900; step++) {
    const given = (await drafts.guess([{ request: one, most: 8 }], 1, 64)).drafts.get(one) ?? [];
    clock += memoryBound(1 + given.length);
    drafts.judge(one, given[0] === 7 ? given.length : 0, false);
    drafts.record(1 + given.length, given.length, memoryBound(1 + given.length));
    if (step === 299) {
      assert.ok(calls[0]! < 40 && calls[1]! > 240, `${calls}`);
      calls.fill(0);
    }
    if (step === 599) calls.fill(0);
  }
  assert.ok(calls[0]! > 280 && calls[1]! < 20, `${calls}`);
});

test('in a batch, drafts are shorter where rows are dear', async () => {
  // Rows cost nothing up to 8.
  const stepMs = (rows: number): number => 10 + 4 * Math.max(0, rows - 8);
  const world = { stepMs, guessMs: 0.5, readMs: 0, right: (_: number, i: number) => i < 6 };
  const mean = async (requests: number): Promise<number> => {
    const { lengths } = await run(world, 200, requests);
    const late = lengths.slice(100).flat();
    return late.reduce((a, b) => a + b) / late.length;
  };
  const [one, four] = [await mean(1), await mean(4)];
  assert.ok(one > 3 && four < one / 2, `${one} alone, ${four} of four`);
});

test('lengths: the likeliest guesses first, as many as give most tokens in the time', () => {
  const choose = (chances: readonly number[], room = 64): number[] =>
    chooseLengths({
      rows: chances.length,
      room,
      requests: chances.map((chance) => ({ chance, most: 8 })),
      stepMs: (rows) => 10 + 0.5 * rows,
      guessMs: () => 1,
    });
  assert.deepEqual(choose([0]), [0]);
  assert.deepEqual(choose([1]), [8]);
  assert.deepEqual(choose([0.05, 0.02]), [0, 0]);
  const [good, bad] = choose([0.9, 0.2]);
  assert.ok(good! >= 3 && bad! <= 1);
  assert.deepEqual(
    choose([1, 1], 5).reduce((a, b) => a + b),
    5,
  );
  assert.deepEqual(choose([1, 0.9], 0), [0, 0]);
});

test('times of rows: a slow one changes nothing, unknown numbers are expected to be like known ones', () => {
  const times = new RowTimes();
  assert.equal(times.ms(1), undefined);
  for (const ms of [10, 90, 10]) times.record(1, ms);
  assert.equal(times.ms(1), 10);
  times.record(5, 50);
  assert.ok(times.ms(5)! < 11, 'one time may have been disturbed');
  for (const ms of [30, 31]) times.record(5, ms);
  assert.equal(times.ms(5), 31);
  assert.equal(times.ms(3), 20.5);
  assert.equal(times.since(1), 3);
  assert.equal(times.since(2), Number.POSITIVE_INFINITY);
});

test('tokens are compared one by one', () => {
  const tokens = (list: readonly (string | undefined)[], special: readonly number[] = [], name = 'a') => ({
    name,
    vocab: list.length,
    tokenizer: { vocabSize: list.length, specialIds: special, token: (id: number) => list[id] },
  });
  const bare = (vocab: number, name = 'b') => ({ name, vocab, tokenizer: undefined });
  checkSameTokens(tokens(['x', 'y']), tokens(['x', 'y']));
  checkSameTokens(tokens(['x', 'y', '<image>'], [2]), tokens(['x', 'y']));
  checkSameTokens(tokens(['x', 'y']), tokens(['x', 'y', undefined]));
  checkSameTokens(bare(3), bare(3));
  const refused = (model: Parameters<typeof checkSameTokens>[0], draft: typeof model, message: RegExp): void =>
    assert.throws(() => checkSameTokens(model, draft), { code: 'InvalidOption', option: 'draft', message });
  refused(
    tokens(['x', 'y']),
    tokens(['x', 'z']),
    /^draft must be a model with the tokens of a, whose token 1 is "y", got "z"$/,
  );
  refused(tokens(['x', 'y', 'z']), tokens(['x', 'y']), /whose token 2 is "z", got undefined/);
  refused(tokens(['x', '<a>'], [1]), tokens(['x', 'y']), /whose token 1 is "<a>", got "y"/);
  refused(bare(3), bare(4), /of which there are 3, got 4/);
  refused(tokens(['x']), bare(1), /which has a tokenizer, got "no tokenizer"/);
});
