/** Storage plans: a storage for each weight by its name, instead of a policy. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FormatError, OptionError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import {
  describeModel,
  embeddedModel,
  formatStoragePlan,
  load,
  type ModelDescription,
  parseStoragePlan,
  quantizeModel,
  type StoragePlan,
} from '../../src/node.ts';
import { lanewise } from '../cli/run.ts';
import { wholeForward } from '../whole-forward.ts';
import { largestDifference } from './support.ts';

const golden = fileURLToPath(new URL('../golden/models', import.meta.url));
const scratch = await mkdtemp(join(tmpdir(), 'lanewise-plan-'));
after(() => rm(scratch, { recursive: true }));

const planOf = (weights: Record<string, unknown>, more: object = {}): StoragePlan =>
  ({ version: 1, weights, ...more }) as unknown as StoragePlan;
const storages = ({ plan }: ModelDescription): Record<string, string> =>
  Object.fromEntries(plan.weights.map(({ name, storage }) => [name, storage]));

test('a plan stores what it names, and leaves the rest as the file has it', async () => {
  const before = storages(await describeModel(embeddedModel, 'none'));
  const weights = { 'layers.0.attention.q': 'q8_0', 'layers.1.ffn.up': 'q4_k', 'layers.2.ffn.down': 'f32' };
  const found = storages(await describeModel(embeddedModel, planOf(weights)));
  assert.deepEqual(found, { ...before, ...weights });
});

test('the embedding and a tied head are one matrix unless the plan says otherwise', async () => {
  const stored = async (weights: Record<string, string>): Promise<[string, string, boolean]> => {
    const { plan } = await describeModel(embeddedModel, planOf(weights));
    const [embedding, output] = ['embedding', 'output'].map((name) => plan.weights.find((w) => w.name === name)!);
    return [embedding!.storage, output!.storage, output!.shares !== undefined];
  };
  assert.deepEqual(await stored({ output: 'q6_k' }), ['q6_k', 'q6_k', true]);
  assert.deepEqual(await stored({ embedding: 'q6_k' }), ['q6_k', 'q6_k', true]);
  assert.deepEqual(await stored({ embedding: 'q8_0', output: 'q4_0' }), ['q8_0', 'q4_0', false]);
});

test('a plan that does what a policy does gives the same bits', async () => {
  const ids = Array.from({ length: 20 }, (_, i) => (11 + i * 97) % 4096);
  const logits = async (quantize: string | StoragePlan): Promise<Float32Array> => {
    await using model = await load(embeddedModel, { quantize, threads: 2 });
    return (await wholeForward(model, ids)).get('logits')!.values;
  };
  const { plan } = await describeModel(embeddedModel, 'q8_0,ffn=q4_0');
  const weights = Object.fromEntries(plan.weights.flatMap((w) => (w.linear ? [[w.name, w.storage]] : [])));
  assert.equal(largestDifference(await logits(planOf(weights)), await logits('q8_0,ffn=q4_0')), 0);
});

test('a plan for another model is refused, and so are names and storages that do not fit', async () => {
  const refuse = (plan: StoragePlan, message: RegExp): Promise<void> =>
    assert.rejects(
      describeModel(embeddedModel, plan),
      (error) => error instanceof OptionError && message.test(error.message),
    );
  await refuse(planOf({ 'layers.99.attention.q': 'q8_0' }), /layers\.99\.attention\.q/);
  await refuse(planOf({ 'layers.0.attention.norm': 'f32' }), /layers\.0\.attention\.norm/);
  await refuse(planOf({}, { model: { type: 'llama', layers: 2, dim: 8, vocab: 9 } }), /llama with 2 layers/);
  const { config } = await describeModel(embeddedModel);
  const { layers, dim, vocab } = config;
  await describeModel(embeddedModel, planOf({}, { model: { type: 'gpt2', layers, dim, vocab } }));
  const odd = join(golden, 'gpt2-tied-f32');
  const { plan } = await describeModel(odd, 'none');
  const matrix = plan.weights.find(({ linear, shape }) => linear && shape[1]! % 256 !== 0)!;
  await assert.rejects(describeModel(odd, planOf({ [matrix.name]: 'q4_k' })), {
    name: 'OptionError',
    message: new RegExp(`${matrix.name.replaceAll('.', '\\.')}.*blocks of 256`),
  });
});

test('a plan file is read back as written, and others name the field at fault', () => {
  const plan = planOf({ output: 'q4_0' }, { explain: { output: { reason: 'largest', ms: 1.5 } } });
  const { name, ...read } = parseStoragePlan(formatStoragePlan({ ...plan, name: 'a.json' }), 'b.json');
  assert.equal(name, 'b.json');
  assert.deepEqual(read, plan);
  for (const [text, found] of [
    ['', 'no JSON'],
    ['[]', 'an object'],
    ['{"weights": {}}', 'version 1'],
    ['{"version": 2, "weights": {}}', 'expected version 1, found 2'],
    ['{"version": 1}', 'weights'],
    ['{"version": 1, "weights": {"output": "q9_9"}}', 'weights["output"]'],
    ['{"version": 1, "weights": {"output": "__proto__"}}', 'weights["output"]'],
    ['{"version": 1, "weights": {}, "model": {"type": "gpt2"}}', 'model.layers'],
    ['{"version": 1, "weights": {}, "explain": {"output": "why"}}', 'explain["output"]'],
  ] as const)
    assert.throws(
      () => parseStoragePlan(text, 'p.json'),
      (error) => error instanceof FormatError && error.message.startsWith('p.json') && error.message.includes(found),
      text,
    );
});

for (const name of ['gpt2-wide', 'phi3', 'mixtral', 'gemma4']) {
  test(`quantize by a plan: the tensors of ${name} have the storages that the plan names`, async () => {
    const source = join(golden, name);
    const { plan } = await describeModel(source, 'none');
    const matrices = plan.weights.filter(({ linear, shape }) => linear && shape[1]! % 32 === 0);
    const weights = Object.fromEntries(
      matrices.map((w) => [w.name, /\.(q|gate|up|experts.*)\b/.test(w.name) ? 'q4_0' : 'q8_0']),
    );
    const file = join(scratch, `${name}.gguf`);
    await quantizeModel(source, file, { to: 'f32', policy: planOf(weights) });
    const read = storages(await describeModel(file, 'none'));
    const checkpoint = await openGguf(nodeFolder(scratch), `${name}.gguf`);
    const types = new Set([...checkpoint.tensors.values()].map(({ dtype }) => dtype));
    await checkpoint.close();
    assert.ok(types.has('Q4_0') || types.has('Q8_0'), [...types].join(' '));
    // Weights that share a tensor get the larger storage of the two.
    for (const [weight, storage] of Object.entries(weights))
      assert.ok(
        read[weight] === storage || (storage === 'q4_0' && read[weight] === 'q8_0'),
        `${weight}: ${read[weight]}`,
      );
  });
}

test('the command line takes a plan wherever it takes a policy, and not both', async () => {
  const file = join(scratch, 'plan.json');
  await writeFile(file, formatStoragePlan(planOf({ 'layers.0.attention.q': 'q4_0', output: 'q8_0' })));
  const plan = await lanewise(['plan', '--plan', file, '--json']);
  const { weights } = JSON.parse(plan.out) as { weights: { name: string; stored: string; reason: string }[] };
  assert.equal(weights.find(({ name }) => name === 'layers.0.attention.q')!.stored, 'q4_0');
  assert.equal(weights.find(({ name }) => name === 'layers.0.attention.k')!.reason, 'not in the plan');
  const text = await lanewise(['generate', '--plan', file, '--prompt', 'Once', '--max-tokens', '3', '--json']);
  assert.ok(text.out.includes(JSON.stringify(file)), text.out);
  const both = await lanewise(['plan', '--plan', file, '--quantize', 'q8_0']);
  assert.match(both.err, /--quantize or --plan, not both/);
  const broken = join(scratch, 'broken.json');
  await writeFile(broken, (await readFile(file, 'utf8')).replace('q4_0', 'q4'));
  const refused = await lanewise(['generate', '--plan', broken, '--prompt', 'Once']);
  assert.match(refused.err, /broken\.json: expected a plan whose weights\["layers\.0\.attention\.q"\] is one of f32, /);
});
