import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { cosSin, decay, erfc, exp, log, pow, tanh } from '../../src/numbers.ts';
import { Sampler } from '../../src/sampling/sampler.ts';
import { type SamplingOptions, validateSampling } from '../../src/sampling/sampling-options.ts';
import { StopMatcher } from '../../src/schedule/stop.ts';

const sampler = (options: SamplingOptions, history: number[] = []): Sampler =>
  new Sampler(validateSampling({ seed: 1, ...options }), history);
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
  for (let x = -37; x <= 0; x += 0.00173) assert.ok(Math.abs(decay(x) / Math.exp(x) - 1) < 3e-14);
  assert.deepEqual([decay(0), decay(-37.01), decay(-Infinity), decay(Number.NaN)], [1, 0, 0, 0]);
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
  const row = Float32Array.from({ length: 5000 }, (_, id) => (id % 7 === 0 ? -Infinity : Math.sin(id) * 6 - (id % 3)));
  const weights = Array.from(row, (x) => Math.exp((x - 6) / 0.8));
  const total = weights.reduce((a, b) => a + b, 0);
  for (const cuts of [{}, { topK: 4999 }, { topP: 0.999999 }, { minP: 1e-9 }]) {
    const one = sampler({ temperature: 0.8, ...cuts });
    const found = new Float64Array(10);
    const expected = new Float64Array(10);
    for (const [id, weight] of weights.entries()) expected[Math.floor(id / 500)]! += weight / total;
    for (let n = 0; n < 20_000; n++) {
      const { id } = one.sample(row);
      assert.ok(row[id]! > -Infinity);
      found[Math.floor(id / 500)]! += 1 / 20_000;
    }
    for (const [part, share] of expected.entries()) assert.ok(Math.abs(found[part]! - share) < 0.015, `part ${part}`);
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
