import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Draw, Results } from '../../src/backend/backend.ts';
import { drawFrom } from '../../src/backend/draw.ts';
import { LanewiseError } from '../../src/errors.ts';
import { cosSin, erfc, exp, expFloat, log, pow, tanh } from '../../src/numbers.ts';
import type { Constraint } from '../../src/sampling/constraint.ts';
import { seedOfSample } from '../../src/sampling/random.ts';
import { sampleRows } from '../../src/sampling/sample-rows.ts';
import { type Sample, Sampler } from '../../src/sampling/sampler.ts';
import { type SamplingOptions, validateSampling } from '../../src/sampling/sampling-options.ts';
import { StopMatcher } from '../../src/schedule/stop.ts';

const sampler = (options: SamplingOptions, history: number[] = []): Sampler =>
  new Sampler(validateSampling({ seed: 1, temperature: 1, ...options }), history);
const logits = (...values: number[]): Float32Array => Float32Array.from(values);
const drawn = (options: SamplingOptions, of: Float32Array): Set<number> => {
  const one = sampler(options);
  return new Set(Array.from({ length: 300 }, () => one.sample(of).id));
};

test('greedy takes the largest logit, the lowest id on a tie', () => {
  assert.equal(sampler({ temperature: 0 }).sample(logits(1, 3, 3, 2)).id, 1);
});

test('logits that are no numbers and rows without a candidate are errors', () => {
  assert.throws(() => sampler({}).sample(logits(1, Number.NaN)), { code: 'NumericError' });
  assert.throws(() => sampler({}).sample(logits(1, Number.POSITIVE_INFINITY)), { code: 'NumericError' });
  const none = Number.NEGATIVE_INFINITY;
  assert.throws(() => sampler({}).sample(logits(none, none)), { code: 'NoCandidate' });
});

test('top-k, top-p and min-p leave what they should', () => {
  const row = logits(Math.log(0.5), Math.log(0.25), Math.log(0.15), Math.log(0.1));
  assert.deepEqual([...drawn({}, row)].sort(), [0, 1, 2, 3]);
  assert.deepEqual([...drawn({ topK: 2 }, row)].sort(), [0, 1]);
  assert.deepEqual([...drawn({ topP: 0.6 }, row)].sort(), [0, 1]);
  assert.deepEqual([...drawn({ minP: 0.25 }, row)].sort(), [0, 1, 2]);
});

test('probabilities are those of the softmax, logprobs too', () => {
  const one = sampler({ logprobs: 2 });
  const row = logits(Math.log(0.7), Math.log(0.3));
  const zeros = Array.from({ length: 5000 }, () => one.sample(row).id).filter((id) => id === 0).length;
  assert.ok(Math.abs(zeros / 5000 - 0.7) < 0.03);
  const { top } = one.sample(row);
  assert.deepEqual(
    top!.map(({ id }) => id),
    [0, 1],
  );
  assert.ok(Math.abs(top![0]!.logprob - Math.log(0.7)) < 1e-6);
});

test('penalties and biases move tokens', () => {
  assert.equal(sampler({ temperature: 0, repetitionPenalty: 2 }, [0]).sample(logits(3, 2)).id, 1);
  assert.equal(sampler({ temperature: 0, logitBias: { 0: Number.NEGATIVE_INFINITY } }).sample(logits(3, 2)).id, 1);
  const frequent = sampler({ temperature: 0, frequencyPenalty: 2 });
  frequent.accept(0);
  assert.equal(frequent.sample(logits(3, 2)).id, 1);
});

test('the same seed draws the same tokens, also beyond 32 bits', () => {
  const row = Float32Array.from({ length: 50 }, (_, i) => (i * 37) % 11);
  const draw = (seed: number): number[] => {
    const one = sampler({ seed });
    return Array.from({ length: 20 }, () => one.sample(row).id);
  };
  assert.deepEqual(draw(5), draw(5));
  assert.notDeepEqual(draw(5), draw(5 + 2 ** 32));
});

test('stop strings never leak, however the text is cut', () => {
  const text = fc.array(fc.constantFrom('a', 'b', 'ab', 'aab'), { maxLength: 12 });
  const stops = fc.array(fc.constantFrom('aab', 'ba', 'abab', 'bbb'), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(text, stops, (pieces, words) => {
      const matcher = new StopMatcher(words);
      let shown = '';
      let stopped = false;
      for (const piece of pieces) {
        const { text: more, stop } = matcher.push(piece);
        shown += more;
        if ((stopped = stop !== undefined)) break;
      }
      if (!stopped) shown += matcher.end();
      const whole = pieces.join('');
      assert.equal(
        stopped,
        words.some((word) => whole.includes(word)),
      );
      assert.ok(whole.startsWith(shown) && !words.some((word) => shown.includes(word)));
      if (!stopped) assert.equal(shown, whole);
    }),
  );
});

test('our functions agree with Math to a few units in the last place', () => {
  const close = (got: number, expected: number, at: number): void =>
    assert.ok(Math.abs(got - expected) <= 1e-14 * Math.abs(expected) + 1e-300, `${got} for ${expected} at ${at}`);
  for (let x = -700; x < 700; x += 0.37) close(exp(x), Math.exp(x), x);
  for (let n = 0; n < 20_000; n++) {
    const x = Math.fround(-n * 0.00431);
    assert.ok(Math.abs(expFloat(x) / Math.exp(x) - 1) < 1.2e-7, `${x}`);
  }
  assert.deepEqual([expFloat(0), expFloat(-88), expFloat(-Infinity), expFloat(Number.NaN)], [1, 0, 0, 0]);
  for (let x = 1e-3; x < 1e6; x *= 1.01) {
    close(log(x), Math.log(x), x);
    close(pow(10_000, x / 1e6), 10_000 ** (x / 1e6), x);
  }
  for (let x = -5000; x < 5000; x += 0.73) {
    const [cos, sin] = cosSin(x);
    assert.ok(Math.abs(cos - Math.cos(x)) < 1e-11 && Math.abs(sin - Math.sin(x)) < 1e-11, `angle ${x}`);
    assert.ok(Math.abs(tanh(x / 500) - Math.tanh(x / 500)) < 1e-14);
  }
  assert.equal(erfc(0), 1);
  assert.ok(Math.abs(erfc(1) - 0.15729920705028513) < 1e-12 && Math.abs(erfc(-1) - 1.8427007929497148) < 1e-12);
});

test('draws from large vocabularies follow the probabilities, with and without cuts', () => {
  const row = Float32Array.from({ length: 1500 }, (_, id) => (id % 7 === 0 ? -Infinity : Math.sin(id) * 6 - (id % 3)));
  const weights = Array.from(row, (x) => Math.exp((x - 6) / 0.8));
  const total = weights.reduce((a, b) => a + b, 0);
  for (const cuts of [{}, { topK: 1400 }, { topP: 0.999999 }, { minP: 1e-9 }]) {
    const one = sampler({ temperature: 0.8, ...cuts });
    const found = new Float64Array(10);
    const expected = new Float64Array(10);
    for (const [id, weight] of weights.entries()) expected[Math.floor(id / 150)]! += weight / total;
    for (let n = 0; n < 4000; n++) {
      const { id } = one.sample(row);
      assert.ok(row[id]! > -Infinity);
      found[Math.floor(id / 150)]! += 1 / 4000;
    }
    for (const [part, share] of expected.entries()) assert.ok(Math.abs(found[part]! - share) < 0.02, `part ${part}`);
  }
});

test('top-p keeps the fewest tokens that reach it, ties by id, among many', () => {
  const values = fc.array(fc.integer({ min: -8, max: 8 }), { minLength: 1, maxLength: 600 });
  fc.assert(
    fc.property(values, fc.double({ min: 0.05, max: 0.95, noNaN: true }), (integers, topP) => {
      const row = Float32Array.from(integers, (x) => x / 2);
      const order = [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b);
      const total = row.reduce((sum, x) => sum + Math.exp(x), 0);
      const kept = new Set<number>();
      let sum = 0;
      for (const id of order) {
        // Where the sum meets the share to a hair, either is right.
        if (sum / total >= topP + 1e-9) break;
        kept.add(id);
        sum += Math.exp(row[id]!);
      }
      const one = sampler({ topP });
      for (let n = 0; n < 20; n++) assert.ok(kept.has(one.sample(row).id));
    }),
  );
});

/** What a forward with these rows of logits would give. */
const resultsOf = (rows: readonly Float32Array[]): Pick<Results, 'output' | 'summary' | 'draw'> => ({
  output: (i) => rows[i]!,
  summary: (i) => {
    const row = rows[i]!;
    const largest = row.some(Number.isNaN) ? Number.NaN : Math.max(...row);
    const sum = row.reduce((all, x) => all + Math.exp(x - largest), 0);
    const chunks = Float32Array.of(largest, sum);
    return { largest, chunk: 0, logSumExp: largest + Math.log(sum), chunks };
  },
  draw: async (draws: readonly Draw[]) => Int32Array.from(draws, (draw) => drawFrom(rows[draw.row]!, draw)),
});

/** Allows the ids, and notes what it is told. */
const only = (...ids: number[]): Constraint & { accepted: number[] } => {
  const accepted: number[] = [];
  return {
    accepted,
    allowed(mask) {
      assert.ok(mask.every((word) => word === 0xffffffff));
      mask.fill(0);
      for (const id of ids) mask[id >>> 5]! |= 1 << (id & 31);
    },
    accept: (token) => void accepted.push(token),
  };
};

test('a constraint comes before bias, penalties and cuts; logprobs are those of the model', () => {
  const row = logits(5, 4, 3, 2, 1);
  const plain = sampler({ temperature: 0, logprobs: 2 }).sample(row);
  const constraint = only(2, 3);
  const one = sampler({ temperature: 0, logprobs: 2, constraint, logitBias: { 0: 100 } });
  const { id, logprob, top } = one.sample(row);
  assert.equal(id, 2);
  assert.ok(Math.abs(logprob - (plain.logprob - 2)) < 1e-6);
  assert.deepEqual(top, plain.top);
  one.accept(id);
  assert.deepEqual(constraint.accepted, [2]);
  for (const cuts of [{ topK: 1 }, { topP: 0.01 }, { minP: 1 }])
    assert.deepEqual([...drawn({ constraint: only(3, 4), ...cuts }, row)], [3], JSON.stringify(cuts));
  assert.deepEqual([...drawn({ constraint: only(3, 4) }, row)].sort(), [3, 4]);
  // Ids beyond the vocabulary are nobody's.
  assert.throws(() => sampler({ constraint: only(5, 31) }).sample(row), { code: 'NoCandidate' });
});

test('a function makes a constraint for each sampler', () => {
  let made = 0;
  const constraint = (): Constraint => only(made++);
  assert.deepEqual(
    [0, 1, 2].map(() => sampler({ temperature: 0, constraint }).sample(logits(1, 2, 3)).id),
    [0, 1, 2],
  );
});

test('a logits processor sees the text so far and what is allowed; it cannot allow more', () => {
  const seen: unknown[] = [];
  const one = sampler(
    {
      temperature: 0,
      constraint: only(1, 2),
      logitBias: { 1: -50 },
      logitsProcessor(values, history) {
        seen.push([[...values], [...history]]);
        values.set([1000, 30, 0, 1000]);
      },
    },
    [7],
  );
  const row = logits(1, 2, 3, 4);
  assert.equal(one.sample(row).id, 2, 'the bias comes after the processor');
  one.accept(2);
  one.sample(row);
  assert.deepEqual(seen, [
    [[-Infinity, 2, 3, -Infinity], [7]],
    [
      [-Infinity, 2, 3, -Infinity],
      [7, 2],
    ],
  ]);
  assert.deepEqual([...row], [1, 2, 3, 4]);
});

test('rows are sampled as each alone, and what is wrong with one is its own error', async () => {
  const row = (seed: number): Float32Array =>
    Float32Array.from({ length: 100 }, (_, id) => 4 * Math.sin(seed * 7 + id * id));
  const settings: SamplingOptions[] = [
    { seed: 4, topP: 0.9 },
    { temperature: 0 },
    { temperature: 0.7, topK: 5, repetitionPenalty: 1.3 },
    { constraint: only(40, 41), temperature: 2, logprobs: 3 },
    { logitsProcessor: (values) => void values.fill(0) },
  ];
  const rows = settings.map((_, i) => row(i));
  const alone = settings.map((options, i) => sampler(options, [3, 5]).sample(rows[i]!));
  const ids = (samples: readonly (Sample | LanewiseError)[]): unknown[] =>
    samples.map((sample) => (sample instanceof LanewiseError ? sample.code : sample.id));
  const together = await sampleRows(
    resultsOf(rows),
    settings.map((options, index) => ({ row: index, sampler: sampler(options, [3, 5]) })),
  );
  assert.deepEqual(ids(together), ids(alone));
  const boom = (): never => {
    throw new TypeError('boom');
  };
  const bad: [SamplingOptions, Float32Array][] = [
    [{ constraint: only() }, rows[0]!],
    [{}, rows[0]!],
    [{}, logits(1, Number.NaN)],
    [{ logitsProcessor: boom }, rows[0]!],
    [{ logitsProcessor: (values) => void values.fill(Number.NaN) }, rows[0]!],
    [{ constraint: { ...only(), allowed: boom } }, rows[0]!],
    [{ temperature: 0 }, logits(-Infinity, -Infinity)],
  ];
  const faults = await sampleRows(
    resultsOf(bad.map(([, values]) => values)),
    bad.map(([options], index) => ({ row: index, sampler: sampler(options) })),
  );
  const [none, fine, nan, thrown, written, refused, masked] = ids(faults);
  assert.equal(fine, sampler({}).sample(rows[0]!).id);
  assert.deepEqual(
    [none, nan, thrown, written, refused, masked],
    ['NoCandidate', 'NumericError', 'CallbackFailed', 'NumericError', 'CallbackFailed', 'NoCandidate'],
  );
  assert.match((faults[3] as LanewiseError).message, /logitsProcessor threw an error: boom/);
});

test('constraint and processor are checked with the options', () => {
  for (const constraint of [5, 'abc', {}, { allowed() {} }, null, []])
    if (constraint !== null)
      assert.throws(() => validateSampling({ constraint } as object), { code: 'InvalidOption', option: 'constraint' });
  for (const logitsProcessor of [1, {}, 'x'])
    assert.throws(() => validateSampling({ logitsProcessor } as object), { option: 'logitsProcessor' });
});

test('weights of a draw are those of the softmax at any temperature, the extreme ones too', () => {
  const row = logits(3, 1, 1, -2, -Infinity, 0);
  const share = (temperature: number, uniform: number): number =>
    drawFrom(row, { temperature, topK: 0, topP: 1, minP: 0, uniform });
  for (const temperature of [0.3, 1, 2.5, 40]) {
    const weights = [...row].map((x) => Math.exp((x - 3) / temperature));
    const total = weights.reduce((a, b) => a + b);
    let below = 0;
    for (const [id, weight] of weights.entries()) {
      // Well within the stretch that the token has.
      if (weight / total > 1e-3)
        for (const part of [0.001, 0.5, 0.999]) assert.equal(share(temperature, (below + part * weight) / total), id);
      below += weight;
    }
  }
  for (const temperature of [1e-300, 1e-30]) assert.equal(share(temperature, 0.999), 0);
  const hot = [0.1, 0.3, 0.5, 0.7, 0.9].map((uniform) => share(1e300, uniform));
  assert.deepEqual(hot, [0, 1, 2, 3, 5]);
});

test('samples of one request: the first has its seed, all differ, and neighbouring seeds share none', () => {
  assert.equal(seedOfSample(42, 0), 42);
  const seeds = [0, 1, 2, 41, 42, 2 ** 53 - 1].flatMap((seed) =>
    [1, 2, 3, 64].map((index) => seedOfSample(seed, index)),
  );
  assert.equal(new Set(seeds).size, seeds.length);
  assert.ok(seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0));
  // Part of what a seed stands for: these do not change between versions.
  assert.deepEqual(
    [1, 2].map((index) => seedOfSample(42, index)),
    [4385220027024714, 5512094565838406],
  );
});
