/** How many threads a forward uses when cores come and go; on a clock that only moves with the forwards. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Governor } from '../../src/backend/wasm/threads/governor.ts';

/** Runs forwards for so many milliseconds; the threads of each, and the time spent. */
function simulate(cores: number, threads: number, counted = true) {
  let now = 0;
  const governor = new Governor(threads, cores, () => now, counted);
  return (milliseconds: number, cost: (threads: number) => number, rows = 1) => {
    const used: number[] = [];
    const end = now + milliseconds;
    while (now < end) {
      const chosen = governor.choose(rows);
      const ms = cost(chosen);
      now += ms;
      governor.record(rows, chosen, ms);
      used.push(chosen);
    }
    return {
      used,
      share: (count: number) => used.filter((n) => n === count).length / used.length,
      forwards: used.length,
    };
  };
}

/** Two cores of one's own. */
const fine = (threads: number): number => 10 / threads;
/** The second core belongs to somebody else: barriers wait for a thread that does not run. */
const stolen = (threads: number): number => (threads === 1 ? 10 : 25);

test('all threads while all is well, after one short trial of fewer', () => {
  const run = simulate(2, 2);
  const { used } = run(20_000, fine);
  assert.equal(used.filter((threads) => threads === 1).length, 3);
  const expensive = simulate(2, 2)(20_000, (threads) => 40 * fine(threads));
  assert.equal(expensive.share(2), 1, 'slow forwards are not tried with fewer threads without a suspicion');
});

test('a core that was gone from the start: one thread after some forwards', () => {
  const run = simulate(2, 2);
  run(500, stolen);
  assert.ok(run(10_000, stolen).forwards > 0.9 * 1000);
  run(LONGEST_WAIT, fine);
  assert.ok(run(5000, fine).share(2) > 0.99);
});

test('all threads a little slower than one has been: one, also where they have never been much faster', () => {
  const run = simulate(2, 2);
  run(1000, (threads) => (threads === 1 ? 10 : 8));
  run(1000, (threads) => (threads === 1 ? 10 : 11));
  assert.ok(run(10_000, (threads) => (threads === 1 ? 10 : 11)).share(1) > 0.95);
});

test('one slow forward in a trial does not decide it', () => {
  const run = simulate(2, 2);
  run(1000, stolen);
  let trial = 0;
  const given = (threads: number): number => (threads === 2 && trial++ === 0 ? 100 : fine(threads));
  run(LONGEST_WAIT, given);
  assert.ok(run(5000, fine).share(2) > 0.99);
});

test('a stolen core: one thread within a second, and all again when it is given back', () => {
  const run = simulate(2, 2);
  run(2000, fine);
  run(1000, stolen);
  const { forwards } = run(10_000, stolen);
  assert.ok(forwards > 0.9 * 1000, `${forwards} forwards of 1000 that one thread would do`);
  run(LONGEST_WAIT, fine);
  assert.ok(run(5000, fine).share(2) > 0.99);
});

test('more threads than cores: as many as there are cores when those are faster', () => {
  const run = simulate(2, 4);
  const cost = (threads: number): number => (threads > 2 ? 30 : 10 / threads);
  run(1000, cost);
  assert.ok(run(10_000, cost).share(2) > 0.95);
});

test('forwards that become slower for a reason of their own, a longer context, keep all threads', () => {
  const run = simulate(2, 2);
  run(1000, fine);
  const { share, forwards } = run(60_000, (threads) => 3 * fine(threads));
  assert.ok(share(2) > 0.99 && forwards > 0.99 * (60_000 / 15), `${share(2)} of ${forwards}`);
});

test('prompts, whose work is claimed, keep all threads that have cores, also where some forwards are slow', () => {
  const run = simulate(2, 2);
  run(1000, fine, 128);
  assert.equal(run(20_000, stolen, 128).share(2), 1);
  const many = simulate(2, 4);
  many(1000, (threads) => (threads > 2 ? 30 : 10 / threads), 128);
  assert.ok(many(10_000, (threads) => (threads > 2 ? 30 : 10 / threads), 128).share(2) > 0.95);
});

test('kinds of forwards are judged apart', () => {
  const run = simulate(2, 2);
  run(1000, fine);
  run(2000, stolen);
  assert.equal(run(1000, (threads) => 500 / threads, 128).share(2), 1);
});

test('one thread is one thread', () => {
  assert.equal(simulate(2, 1)(1000, fine).share(1), 1);
});

/** The longest time after which all threads are tried again. */
const LONGEST_WAIT = 9000;

test('cores that are only claimed: as many threads as there are cores are found, for prompts too', () => {
  // Two cores; each thread without one makes every barrier wait for its turn.
  const cost = (threads: number): number => 200 / Math.min(threads, 2) + 100 * Math.max(0, threads - 2);
  for (const rows of [1, 64]) {
    const run = simulate(8, 8, false);
    const { used } = run(8000, cost, rows);
    assert.ok(used.includes(2), `${used}`);
    assert.ok(run(60_000, cost, rows).share(2) > 0.8);
    assert.equal(simulate(8, 8)(20_000, cost, 64).share(8), 1, 'counted cores are trusted');
  }
});
