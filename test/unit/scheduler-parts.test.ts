/** Parts of the scheduler by themselves: whose turn it is, who reads how many rows, what a forward will take. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { StepCost } from '../../src/schedule/cost.ts';
import { type PromptReader, PromptShares } from '../../src/schedule/shares.ts';
import { StepRecord } from '../../src/schedule/step-record.ts';
import { WaitingLine, type WaitingRequest } from '../../src/schedule/waiting.ts';

let arrivals = 0;
const waits = (fairnessKey = '', priority = 0): WaitingRequest & { name: string } => ({
  priority,
  fairnessKey,
  arrival: arrivals++,
  passed: 0,
  name: `${fairnessKey}${arrivals}`,
});

/** Admits all, in order. */
function admitAll<R extends WaitingRequest>(line: WaitingLine<R>): R[] {
  const order: R[] = [];
  for (let next = line.next(); next; next = line.next()) {
    line.admit(next);
    order.push(next);
  }
  return order;
}

function lineOf<R extends WaitingRequest>(...requests: readonly R[]): WaitingLine<R> {
  const line = new WaitingLine<R>();
  for (const request of requests) line.add(request);
  return line;
}

test('lower priorities go first, equal ones in the order of their arrival', () => {
  const [a, b, c, d] = [waits('', 1), waits(), waits('', -2), waits()];
  assert.deepEqual(admitAll(lineOf(a, b, c, d)), [c, b, d, a]);
});

test('keys take turns, however many requests one has', () => {
  const many = Array.from({ length: 6 }, () => waits('a'));
  const few = [waits('b'), waits('b'), waits('c')];
  const order = admitAll(lineOf(...many, ...few));
  assert.deepEqual(
    order.map(({ fairnessKey }) => fairnessKey),
    ['a', 'b', 'c', 'a', 'b', 'a', 'a', 'a', 'a'],
  );
});

test('ten later ones may pass a request, not more', () => {
  const line = new WaitingLine<WaitingRequest>();
  const old = waits('', 5);
  line.add(old);
  for (let n = 0; n < 10; n++) {
    const urgent = waits('', 0);
    line.add(urgent);
    assert.equal(line.next(), urgent, `${n}`);
    line.admit(urgent);
  }
  line.add(waits('', -100));
  assert.equal(line.next(), old);
});

test('a line knows who waits, and forgets the turns of keys that are gone', () => {
  const line = new WaitingLine<WaitingRequest>();
  const stays = waits('stays', 9);
  line.add(stays);
  for (let n = 0; n < 9; n++) {
    const other = waits(`key ${n}`);
    line.add(other);
    assert.deepEqual([...line], [stays, other]);
    line.admit(other);
    assert.equal(line.size, 1);
  }
  assert.equal(line.delete(stays), true);
  assert.equal(line.delete(stays), false);
  assert.equal(line.next(), undefined);
  // A key that had a turn in a line that was empty since has no disadvantage.
  const [again, fresh] = [waits('key 1'), waits('new')];
  assert.deepEqual(admitAll(lineOf(again, fresh)), [again, fresh]);
});

interface Reader extends PromptReader {
  missing: number;
}

const reads = (missing: number, fairnessKey = '', priority = 0, total = missing): Reader => ({
  ...{ missing, fairnessKey, priority, total },
  arrival: arrivals++,
  waited: 0,
});

/** One forward: rows of each reader; those that are done leave. */
function forward(shares: PromptShares, readers: Reader[], room: number): Map<Reader, number> {
  const rows = shares.divide(readers, room);
  for (const [reader, count] of rows) {
    reader.missing -= count;
    if (reader.missing === 0) readers.splice(readers.indexOf(reader), 1);
  }
  return rows;
}

const reader = fc.record({
  missing: fc.integer({ min: 1, max: 400 }),
  fairnessKey: fc.constantFrom('a', 'b', 'c'),
  priority: fc.constantFrom(0, 0, 1),
  read: fc.nat(100),
  waited: fc.nat(3000),
});

test('rows of a forward are as many as there is room or need for, and nobody has more than it misses', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.array(reader, { maxLength: 8 }), fc.nat(200)), { maxLength: 8 }), (steps) => {
      const shares = new PromptShares();
      for (const [planned, room] of steps) {
        const readers = planned.map(({ missing, fairnessKey, priority, read, waited }) => ({
          ...reads(missing, fairnessKey, priority, missing + read),
          waited,
        }));
        const rows = shares.divide(readers, room);
        const need = readers.reduce((sum, { missing }) => sum + missing, 0);
        assert.equal(
          [...rows.values()].reduce((sum, count) => sum + count, 0),
          Math.min(room, need),
        );
        for (const [{ missing }, count] of rows) assert.ok(count > 0 && count <= missing);
      }
    }),
    { numRuns: 300 },
  );
});

test('nobody waits for more than ten times its own work, and that of older ones', () => {
  const arrival = fc.record({ rows: fc.integer({ min: 1, max: 300 }), key: fc.nat(5), priority: fc.nat(2) });
  fc.assert(
    fc.property(
      fc.array(fc.array(arrival, { maxLength: 3 }), { minLength: 10, maxLength: 120 }),
      fc.integer({ min: 1, max: 128 }),
      (steps, room) => {
        const shares = new PromptShares();
        const readers: Reader[] = [];
        const older = new Map<Reader, number>();
        const lost = new Map<Reader, number>();
        for (let step = 0; step < steps.length || readers.length > 0; step++) {
          for (const { rows, key, priority } of steps[step] ?? []) {
            const added = reads(rows, `${key}`, priority);
            older.set(
              added,
              readers.reduce((sum, { missing }) => sum + missing, 0),
            );
            readers.push(added);
          }
          const present = [...readers];
          const rows = forward(shares, readers, room);
          const given = [...rows.values()].reduce((sum, count) => sum + count, 0);
          for (const one of present) if (!rows.has(one)) lost.set(one, (lost.get(one) ?? 0) + given);
        }
        for (const [one, rows] of lost) {
          const { total } = one;
          assert.ok(rows <= 10 * total + room + older.get(one)!, `${rows} rows of others before ${total}`);
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('a key with ten times the prompts has no more rows than another one', () => {
  for (const room of [8, 30, 128]) {
    const shares = new PromptShares();
    const readers = [...Array.from({ length: 10 }, () => reads(900, 'many')), reads(900, 'one')];
    const sums = { many: 0, one: 0 };
    while (readers.some(({ fairnessKey }) => fairnessKey === 'one'))
      for (const [{ fairnessKey }, count] of forward(shares, readers, room))
        sums[fairnessKey as keyof typeof sums] += count;
    assert.equal(sums.one, 900);
    assert.ok(sums.many >= 700 && sums.many <= 1100, `${sums.many} rows in forwards of ${room}`);
  }
});

test('a short question of a new key is read at once beside long prompts; in a key the shortest comes first', () => {
  const shares = new PromptShares();
  const readers = [reads(4000, 'a'), reads(4000, 'b')];
  for (let n = 0; n < 5; n++) forward(shares, readers, 64);
  const question = reads(50, 'c');
  readers.push(question);
  assert.equal(forward(shares, readers, 64).get(question), 50);
  const [long, short] = [reads(100), reads(20)];
  assert.deepEqual(
    [...new PromptShares().divide([long, short], 30)],
    [
      [short, 20],
      [long, 10],
    ],
  );
});

test('lower priorities read first; one that has waited long enough goes before them', () => {
  const shares = new PromptShares();
  const [low, high] = [reads(10, 'a', 1), reads(1000, 'b', 0)];
  const readers = [low, high];
  let forwards = 0;
  while (low.missing > 0) {
    forward(shares, readers, 20);
    forwards++;
  }
  // 100 rows of others are 5 forwards; in the sixth it is read.
  assert.equal(forwards, 6);
});

test('what a forward takes is a line through those that were measured', () => {
  const exact = new StepCost();
  assert.equal(exact.rowsWithin(100), undefined);
  exact.record(8, 20);
  assert.ok(Math.abs(exact.rowsWithin(100)! - 40) < 1e-9, 'of one forward: what a row takes at most');
  exact.record(8, 20);
  assert.ok(Math.abs(exact.rowsWithin(100)! - 40) < 1e-9, 'of one size too');
  exact.record(108, 120);
  assert.ok(Math.abs(exact.rowsWithin(100)! - 88) < 1e-6, '12 ms, and 1 ms a row');
  assert.ok(exact.rowsWithin(12)! < 1);
  assert.ok(Math.abs(exact.msOf(3)! - 15) < 1e-6);
  assert.equal(new StepCost().msOf(3), undefined);
  const free = new StepCost();
  free.record(4, 0);
  free.record(8, 0);
  assert.ok(free.rowsWithin(1)! > 1e6);
});

test('costs are found through noise, and follow the machine when it gets slower', () => {
  let state = 7;
  const random = (): number => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
  const cost = new StepCost();
  const measure = (slope: number, times: number): void => {
    for (let n = 0; n < times; n++) {
      const rows = 1 + Math.floor(random() * 100);
      cost.record(rows, (5 + slope * rows) * (0.9 + 0.2 * random()));
    }
  };
  measure(1, 200);
  const within = (rows: number): boolean => Math.abs(cost.rowsWithin(100)! / rows - 1) < 0.1;
  assert.ok(within(95), `${cost.rowsWithin(100)}`);
  measure(3, 100);
  assert.ok(within(95 / 3), `${cost.rowsWithin(100)}`);
});

test('numbers of steps are those of the last 128', () => {
  const record = new StepRecord();
  assert.deepEqual(record.numbers(), { count: 0, rows: 0, lastMs: 0, medianMs: 0, p99Ms: 0, requests: 0 });
  for (let n = 0; n < 100; n++) record.add({ start: 0, ms: 1000, rows: 2 }, 1);
  for (let n = 1; n <= 128; n++) record.add({ start: 0, ms: n, rows: 1 }, 3);
  assert.deepEqual(record.numbers(), { count: 228, rows: 328, lastMs: 128, medianMs: 65, p99Ms: 127, requests: 3 });
});
