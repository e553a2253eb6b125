/** `inspect`: what each stage of sampling removed, and why a token was chosen. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { embeddedModel, type GenerateEvent, load, type TokenInspection } from '../../src/node.ts';
import { Sampler } from '../../src/sampling/sampler.ts';
import { type SamplingOptions, validateSampling } from '../../src/sampling/sampling-options.ts';

const close = (found: number, expected: number): void =>
  assert.ok(Math.abs(found - expected) < 1e-6, `${found}, expected ${expected}`);

function inspected(
  logits: readonly number[],
  options: SamplingOptions,
  history: number[] = [],
): TokenInspection & { id: number } {
  const sampler = new Sampler(validateSampling({ seed: 1, ...options, inspect: true }), history);
  const { id, inspection } = sampler.sample(Float32Array.from(logits));
  return { id, ...inspection! };
}

/** Probabilities 1/2, 1/4, 1/8, 1/16, 1/16. */
const halves = [1, 2, 3, 4, 4].map((n) => -n * Math.LN2);

test('probabilities, entropy and rank are those of the model', () => {
  const found = inspected(halves, { temperature: 0 });
  close(found.entropy, 0.5 + 0.5 + 0.375 + 0.25 + 0.25);
  close(found.entropyAfter, 0);
  assert.equal(found.rank, 1);
  assert.deepEqual(
    found.alternatives.map(({ id }) => id),
    [0, 1, 2, 3, 4],
  );
  for (const [i, p] of [0.5, 0.25, 0.125, 0.0625, 0.0625].entries()) close(found.alternatives[i]!.before, p);
  assert.deepEqual(
    found.stages.map(({ stage, left, removed }) => [stage, left, removed]),
    [['temperature', 1, 4]],
  );
});

test('each stage says which tokens it removed, in the order of the stages', () => {
  const found = inspected(halves, {
    temperature: 1,
    topK: 4,
    topP: 0.8,
    minP: 0.6,
    logitBias: { 4: Number.NEGATIVE_INFINITY },
  });
  assert.deepEqual(
    found.stages.map(({ stage, left, removed, changed }) => [stage, left, removed, changed]),
    [
      ['penalties', 4, 1, 1],
      ['topP', 2, 2, 0],
      ['minP', 1, 1, 0],
    ],
  );
  close(found.stages[1]!.removedProbability, 0.125 + 0.0625);
  assert.deepEqual(
    found.alternatives.map(({ removedBy }) => removedBy),
    [undefined, 'minP', 'topP', 'topP', 'penalties'],
  );
  assert.equal(found.id, 0);
  assert.equal(found.alternatives[0]!.after, 1);
});

test('constraint and logits processor come first', () => {
  const constraint = { allowed: (mask: Uint32Array) => mask.fill(0b11110), accept: () => {} };
  const logitsProcessor = (logits: Float32Array): void => {
    logits[1] = Number.NEGATIVE_INFINITY;
    logits[2]! += 3;
  };
  const found = inspected(halves, { temperature: 1, topK: 1, constraint, logitsProcessor });
  assert.deepEqual(
    found.stages.map(({ stage, removed, changed }) => [stage, removed, changed]),
    [
      ['constraint', 1, 0],
      ['logitsProcessor', 1, 2],
      ['topK', 2, 0],
    ],
  );
  assert.equal(found.id, 2);
  assert.equal(found.rank, 3);
});

test('the chosen token is one that the stages left, at its place, and what is left is whole', () => {
  const settings = fc.record({
    temperature: fc.constantFrom(0, 0.3, 1, 4),
    topK: fc.constantFrom(0, 1, 5),
    topP: fc.constantFrom(0.2, 0.9, 1),
    minP: fc.constantFrom(0, 0.05, 0.9),
    seed: fc.nat(1000),
    repetitionPenalty: fc.constantFrom(1, 1.5),
  });
  const numbers = fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(settings, numbers, (options, logits) => {
      const found = inspected(logits, options, [0]);
      const chosen = found.alternatives.find(({ id }) => id === found.id)!;
      assert.ok(chosen.after > 0 && chosen.removedBy === undefined);
      const whole = logits.length - found.stages.reduce((sum, { removed }) => sum + removed, 0);
      assert.equal(found.stages.at(-1)?.left ?? logits.length, whole);
      const plain = new Sampler(validateSampling(options), [0]).sample(Float32Array.from(logits));
      assert.equal(plain.id, found.id);
    }),
    { numRuns: 300 },
  );
});

test('a text has the same tokens with and without, hosted too', async () => {
  await using model = await load(embeddedModel, { threads: 2 });
  const options = { maxTokens: 12, seed: 5, temperature: 0.9, topP: 0.9, repetitionPenalty: 1.1 };
  const events: GenerateEvent[] = [];
  for await (const event of model.generate('One day', { ...options, inspect: true })) events.push(event);
  const tokens = events.filter((event) => event.type === 'token');
  assert.deepEqual(
    tokens.map(({ id }) => id),
    (await model.complete('One day', options)).tokenIds,
  );
  for (const { id, logprob, inspection } of tokens) {
    const { before } = inspection!.alternatives.find((one) => one.id === id)!;
    close(Math.log(before), logprob);
    assert.ok(inspection!.stages.some(({ stage }) => stage === 'topP'));
  }
});
