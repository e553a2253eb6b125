/** The bootstrap interval of rounds: what is noise, and what is found, in simulated turns. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { bootstrapChange, studentQuantile, tailOf } from '../../src/measure/bootstrap.ts';
import { SMALLEST_CHANGE } from '../../src/measure/rounds.ts';
import { verdictOf } from '../../src/measure/statistics.ts';
import { Random } from '../../src/sampling/random.ts';

/** A machine whose speed varies: the factor by which the next turn takes longer. */
type Weather = (random: Random) => () => number;

const normal = (random: Random): number =>
  Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());

const weathers: Readonly<Record<string, Weather>> = {
  'independent noise of 2 %': (random) => () => Math.exp(0.02 * normal(random)),
  'heavy tails: one turn in eight up to three times as long': (random) => () =>
    (1 + 0.02 * Math.abs(normal(random))) * (random.uniform() < 1 / 8 ? 1 + 2 * random.uniform() : 1),
  'Cauchy tails': (random) => () => 1 + 0.01 * Math.abs(Math.tan(Math.PI * (random.uniform() - 0.5))),
  'drift: a machine that gets 2 % slower with every turn': (random) => {
    let turn = 0;
    return () => 1.02 ** turn++ * Math.exp(0.02 * normal(random));
  },
  'neighbouring turns that resemble each other (0.8), with bursts': (random) => {
    let state = 0;
    return () => {
      state = 0.8 * state + 0.03 * normal(random);
      return Math.exp(state + 0.01 * normal(random)) * (random.uniform() < 0.05 ? 1.5 : 1);
    };
  },
  'two speeds of a shared core that each last some turns': (random) => {
    let slow = 0;
    return () => {
      if (random.uniform() < 0.2) slow = 1 - slow;
      return (1 + 0.3 * slow) * Math.exp(0.01 * normal(random));
    };
  },
};

/** Times of two sides that take turns in alternating order. */
function turns(weather: Weather, seed: number, count: number, slowdown: number): [number[], number[]] {
  const next = weather(new Random(seed));
  const [before, after]: [number[], number[]] = [[], []];
  for (let turn = 0; turn < count; turn++) {
    const sides: (() => void)[] = [() => before.push(10 * next()), () => after.push(10 * slowdown * next())];
    for (const side of turn % 2 ? sides.reverse() : sides) side();
  }
  return [before, after];
}

const share = (weather: Weather, count: number, slowdown: number, runs: number, wanted: string): number => {
  let found = 0;
  for (let seed = 1; seed <= runs; seed++) {
    const [before, after] = turns(weather, seed, count, slowdown);
    if (verdictOf(bootstrapChange(before, after), SMALLEST_CHANGE) === wanted) found++;
  }
  return found / runs;
};

for (const [name, weather] of Object.entries(weathers))
  for (const count of [6, 12])
    test(`equal sides are noise in at least 95 of 100 runs of ${count} turns: ${name}`, () => {
      const noise = share(weather, count, 1, 100, 'noise');
      assert.ok(noise >= 0.95, `${noise}`);
    });

test('a slowdown of 5 % is called a regression, and the same speedup a gain', () => {
  for (const [name, count, least] of [
    ['independent noise of 2 %', 12, 0.85],
    ['independent noise of 2 %', 20, 0.98],
    ['heavy tails: one turn in eight up to three times as long', 20, 0.9],
    ['drift: a machine that gets 2 % slower with every turn', 20, 0.9],
    ['two speeds of a shared core that each last some turns', 20, 0.9],
  ] as const) {
    const found = share(weathers[name]!, count, 1.05, 50, 'regression');
    assert.ok(found >= least, `${name}: ${found}`);
    const gained = share(weathers[name]!, count, 1 / 1.05, 50, 'gain');
    assert.ok(gained >= least, `${name}: ${gained}`);
  }
});

test('the interval holds the true ratio in about 95 of 100 runs', () => {
  let held = 0;
  for (let seed = 1; seed <= 500; seed++) {
    const { low, high } = bootstrapChange(...turns(weathers['independent noise of 2 %']!, seed, 12, 1.2));
    if (low <= 1.2 && 1.2 <= high) held++;
  }
  assert.ok(held >= 465 && held <= 495, `${held} of 500`);
});

test('the same samples give the same interval; other seeds nearly the same', () => {
  const [before, after] = turns(weathers['independent noise of 2 %']!, 1, 12, 1);
  assert.deepEqual(bootstrapChange(before, after), bootstrapChange(before, after));
  const [a, b] = [bootstrapChange(before, after, 1), bootstrapChange(before, after, 2)];
  assert.equal(a.ratio, b.ratio);
  assert.ok(Math.abs(a.low - b.low) < 0.01 && Math.abs(a.high - b.high) < 0.01);
});

test('few pairs: the interval is the range of their ratios', () => {
  assert.deepEqual(bootstrapChange([10], [12]), { ratio: 1.2, low: 1.2, high: 1.2 });
  const { ratio, low, high } = bootstrapChange([10, 10, 10], [11, 12, 13]);
  assert.deepEqual([ratio, low, high], [1.2, 1.1, 1.3]);
});

test("Student's quantiles, by their table", () => {
  for (const [degrees, quantile] of [
    [1, 12.7062],
    [3, 3.1824],
    [5, 2.5706],
    [11, 2.201],
    [30, 2.0423],
  ] as const)
    assert.ok(Math.abs(studentQuantile(degrees) / quantile - 1) < 0.002, `${degrees}: ${studentQuantile(degrees)}`);
  assert.ok(tailOf(6) < tailOf(12) && tailOf(12) < tailOf(1000) && tailOf(1000) < 0.0251);
});
