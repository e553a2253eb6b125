/** Taps of finished plans: the rows they keep on every backend, and that they change no bit of the logits. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { OptionError } from '../../src/errors.ts';
import type { Plan, StepOf } from '../../src/plan/step.ts';
import { hiddenStates, layerOf, rowsOfExpert, withLinearInputs, withTaps } from '../../src/plan/taps.ts';
import { dequantize } from '../../src/quant/codec.ts';
import { backends, type MakeBackend, Runner, readGolden, reference } from '../models/support.ts';

const some = ['reference', "wasm, 2 threads, this machine's choice", 'wasm, 2 threads, many memories'];

/** What the plan computes up to a step, as its output: an independent way to the input of that step. */
const cutBefore =
  (index: (plan: Plan) => number): MakeBackend =>
  (options) => {
    const { plan } = options;
    const at = index(plan);
    const output = (plan.steps[at] as StepOf<'matmul'>).x;
    return reference({ ...options, plan: { ...plan, steps: plan.steps.slice(0, at), output } });
  };

const nothing = { steps: 'no such scope' };

const size = (values: Float32Array): number => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

const largest = (a: Float32Array, b: Float32Array): number => {
  assert.equal(a.length, b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

for (const name of ['gpt2-tied-f32', 'gemma4', 'phi', 'mixtral']) {
  test(`${name}: taps of linear layers keep what their matrices are multiplied by, and change no logits`, async () => {
    const [{ ids }] = (await readGolden(name)).inputs;
    const tokens = ids.slice(0, 9);
    const found = new Map<string, Float32Array>();
    let names: string[] = [];
    for (const label of some) {
      const plain = await Runner.open(name, backends[label]!);
      const logits = (await plain.run(tokens, 9)).get('logits')!;
      await plain.close();
      const runner = await Runner.open(name, backends[label]!, 'none', 64, undefined, 'inputs');
      const { plan } = runner.model;
      const whole = await runner.run(tokens, 4);
      assert.equal(largest(whole.get('logits')!, logits), 0, `logits, ${label}`);
      const products = plan.steps.filter((step) => step.op === 'matmul');
      for (const { weight, x } of products) {
        const input = plan.inputs!.get(plan.weights[weight]!.name)!;
        assert.equal(input.width, plan.buffers[x]!.width);
        assert.equal(whole.get(input.tap)!.length, tokens.length * input.width);
      }
      names = [...plan.inputs!].flatMap(([weight, { expert }]) => (expert ? [] : [weight]));
      for (const [weight, { tap }] of plan.inputs!) {
        const before = found.get(weight);
        if (before) assert.ok(largest(whole.get(tap)!, before) < 1e-4 * (1 + size(before)), `${weight}, ${label}`);
        else found.set(weight, whole.get(tap)!);
      }
      await runner.close();
    }
    for (const weight of [names[0]!, names[Math.floor(names.length / 2)]!, names.at(-1)!]) {
      const at = (plan: Plan): number =>
        plan.steps.findIndex((step) => step.op === 'matmul' && plan.weights[step.weight]!.name === weight);
      const cut = await Runner.open(name, cutBefore(at), 'none', 64, undefined, nothing);
      assert.equal(largest((await cut.run(tokens, 9)).get('logits')!, found.get(weight)!), 0, weight);
      await cut.close();
    }
  });
}

test('layers that read the same rows share a tap, and chosen ones alone are kept', async () => {
  const runner = await Runner.open('gpt2-tied-f32', reference, 'none', 64, undefined, nothing);
  const { plan } = runner.model;
  const { inputs, steps } = withLinearInputs(plan);
  const tapOf = (weight: string): string => inputs!.get(weight)!.tap;
  assert.equal(tapOf('layers.0.attention.k'), tapOf('layers.0.attention.q'));
  assert.notEqual(tapOf('layers.0.attention.o'), tapOf('layers.0.attention.q'));
  assert.notEqual(tapOf('layers.1.attention.q'), tapOf('layers.0.attention.q'));
  assert.equal(inputs!.get('output')!.rows, 'wanted');
  assert.equal(
    steps.filter(({ op }) => op === 'tap').length,
    new Set([...inputs!.values()].map(({ tap }) => tap)).size,
  );
  const one = withLinearInputs(plan, (weight) => weight === 'layers.1.ffn.down');
  assert.deepEqual([...one.inputs!.keys()], ['layers.1.ffn.down']);
  assert.equal(one.steps.length, plan.steps.length + 1);
  const [point] = hiddenStates(plan);
  assert.throws(() => withTaps(plan, [point!, point!]), OptionError);
  assert.deepEqual(['layer[12].ffn', 'embedding'].map(layerOf), [12, undefined]);
  await runner.close();
});

test('the rows of an expert are those whose router chose it, and its inner input is computed for them', async () => {
  const expert = { index: 2, of: 4, top: 2, router: 'r' };
  const router = Float32Array.of(9, 1, 5, 0, /* tie, the lower number first */ 3, 7, 3, 0, 1, 2, 9, 9);
  assert.deepEqual(rowsOfExpert(router, expert), [0, 2]);

  const [{ ids }] = (await readGolden('mixtral')).inputs;
  const runner = await Runner.open('mixtral', reference, 'none', 64, undefined, 'inputs');
  const { plan } = runner.model;
  const kept = await runner.run(ids, 64);
  const step = plan.steps.find(({ op }) => op === 'experts') as StepOf<'experts'>;
  const chosen = step.down.map((id) => {
    const { expert: own, tap, width } = plan.inputs!.get(plan.weights[id]!.name)!;
    assert.equal(kept.get(tap)!.length, ids.length * width);
    return rowsOfExpert(kept.get(own!.router)!, own!).length;
  });
  assert.equal(
    chosen.reduce((sum, rows) => sum + rows, 0),
    ids.length * step.top,
  );
  const matrix = async (id: number): Promise<Float32Array> => {
    const tensor = runner.tensor(plan.weights[id]!.source.tensor);
    const bytes = new Uint8Array(tensor.byteLength);
    await tensor.readInto(0, bytes);
    return dequantize(tensor.dtype, bytes);
  };
  const tapOf = (id: number): Float32Array => kept.get(plan.inputs!.get(plan.weights[id]!.name)!.tap)!;
  const [gate, up] = [await matrix(step.gate[1]!), await matrix(step.up[1]!)];
  const [x, inner] = [tapOf(step.gate[1]!), tapOf(step.down[1]!)];
  const [dim, ffn] = [plan.weights[step.gate[1]!]!.shape[1]!, plan.weights[step.gate[1]!]!.shape[0]!];
  for (const n of [0, 3, ffn - 1]) {
    const product = (w: Float32Array): number => x.subarray(0, dim).reduce((sum, v, i) => sum + v * w[n * dim + i]!, 0);
    const gated = product(gate);
    assert.ok(Math.abs(inner[n]! - (gated / (1 + Math.exp(-gated))) * product(up)) < 1e-5);
  }
  await runner.close();
});
