/** Where two models part: damage that was planted is found at its layer, step and token. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { comparisonReport, cosineText, short, verdictOf } from '../../src/evaluation/compare-report.ts';
import { DifferenceMeter } from '../../src/evaluation/row-difference.ts';
import { compareModels, embeddedModel, type LoadOptions, load, type OpenModel, OptionError } from '../../src/node.ts';
import { renderMarkdown } from '../../src/report/markdown.ts';
import { withMatrices } from './changed-model.ts';

const text = await readFile(new URL('../golden/evaluation/alice.txt', import.meta.url), 'utf8');
const folder = await mkdtemp(join(tmpdir(), 'lanewise-compare-'));
after(() => rm(folder, { recursive: true }));
const goldenFolder = (name: string): string => join(import.meta.dirname, '../golden/models', name);

const opener =
  (path = embeddedModel, options: LoadOptions = {}): OpenModel =>
  (taps) =>
    load(path, { inline: true, quantize: 'none', threads: 1, ...options, taps });

const plain = opener();

test('a model whose second layer is damaged is found: layer, step, and the first token', async () => {
  const path = join(folder, 'damaged');
  // One row of the matrix whose outputs the activation reads: Conv1D is [in, out], 1024 wide.
  const damage = (value: number, index: number): number => (index % 1024 === 5 ? value + 0.5 : value);
  await withMatrices(embeddedModel, path, (name) => name === 'transformer.h.1.mlp.c_fc.weight', damage);
  const found = await compareModels(plain, opener(path), text, { maxTokens: 40 });
  const { layers, steps, parting, origin } = found;
  assert.deepEqual([layers[0]!.error, layers[1]!.error, layers[1]!.cosine], [0, 0, 1]);
  assert.ok(layers.slice(2).every(({ error, cosine }) => error > 0 && cosine < 1));
  assert.equal(origin!.layer.scope, 'layer[1]');
  assert.match(origin!.step!.work, /^matmul f16 \[Tx256\]x\[1024x256\] layers\.1\.ffn\.up/);
  assert.equal(origin!.token.position, 0);
  const before = steps.slice(0, steps.indexOf(origin!.step!));
  assert.ok(before.length > 5 && before.every(({ error }) => error === 0));
  assert.match(verdictOf(found), /layer 1, step \d+ \(matmul .*layers\.1\.ffn\.up.*, first at token 0 "C"/);
  const { first } = parting!.layer;
  assert.ok(first! >= parting!.token.position && first! < 40);
  // Damage that is larger: also beyond the tolerance at once.
  const strong = (value: number, index: number): number => (index % 1024 < 64 ? -value : value);
  await withMatrices(embeddedModel, `${path}-2`, (name) => name === 'transformer.h.1.mlp.c_fc.weight', strong);
  const second = await compareModels(plain, opener(`${path}-2`), text, { maxTokens: 40 });
  assert.equal(second.parting!.layer, second.origin!.layer);
  assert.equal(second.parting!.layer.scope, 'layer[1]');
  assert.match(second.parting!.step!.work, /layers\.1\.ffn\.up/);
  assert.match(
    verdictOf(second),
    /^They part in layer 1, step \d+ .* The error grows most in layer 1: from 0 to 0\.\d+\.$/,
  );
});

test('damage of the embedding, a layer, and the head is found there', async () => {
  const damaged = async (name: string, tensor: string, from: string): Promise<OpenModel> => {
    const path = join(folder, name);
    await withMatrices(
      goldenFolder(from),
      path,
      (found) => found === tensor,
      (value) => value * 1.5,
    );
    return opener(path);
  };
  const ids = [1, 5, 9, 30, 31, 32];
  for (const [name, tensor, scope, work] of [
    ['table', 'model.embed_tokens.weight', 'embedding', /^embed/],
    ['head', 'lm_head.weight', 'projection', /^matmul .* output/],
    ['last', 'model.layers.1.mlp.down_proj.weight', 'layer[1]', /^matmul .* layers\.1\.ffn\.down/],
    ['down', 'model.layers.0.mlp.down_proj.weight', 'layer[0]', /^matmul .* layers\.0\.ffn\.down/],
  ] as const) {
    const open = await damaged(name, tensor, 'llama-gqa-f16');
    const { parting } = await compareModels(opener(goldenFolder('llama-gqa-f16')), open, ids, { tolerance: 1e-3 });
    assert.equal(parting?.layer.scope, scope);
    assert.match(parting!.step!.work, work);
    assert.equal(parting!.token.position, 0);
  }
});

test('policies, caches and backends are compared, and threads have the same values', async () => {
  const options = { maxTokens: 24 };
  const worst = async (other: LoadOptions): Promise<number> => {
    const { layers, parting } = await compareModels(plain, opener(undefined, other), text, {
      ...options,
      tolerance: 0.05,
    });
    assert.equal(parting, undefined);
    return Math.max(...layers.map(({ worst }) => worst));
  };
  assert.equal(await worst({ threads: 3 }), 0);
  assert.equal(await worst({ inline: false, revectorize: false }), 0);
  const [reference, cache, policy] = [
    await worst({ backend: 'reference' }),
    await worst({ kvCache: 'f16' }),
    await worst({ quantize: 'q8_0' }),
  ];
  assert.ok(reference > 0 && reference < 1e-5 && cache > reference && cache < 1e-3 && policy > cache && policy < 0.05);
  const { parting, steps } = await compareModels(plain, opener(undefined, { quantize: 'none,ffn=q4_0' }), text, {
    ...options,
    tolerance: 0.02,
  });
  assert.equal(parting!.layer.scope, 'layer[0]');
  assert.match(parting!.step!.work, /layers\.0\.ffn\.up.*, in B q4_0$/);
  assert.ok(steps.every(({ scope }) => scope.startsWith('layer[0]')));
});

test('what cannot be compared is an error that says why', async () => {
  await assert.rejects(compareModels(plain, opener(goldenFolder('gpt2-wide')), text), {
    code: 'NotComparable',
    message: 'B must have as many layers as A, 6, found 2: rows of both are compared',
  });
  await assert.rejects(compareModels(plain, plain, ''), OptionError);
  await assert.rejects(compareModels(plain, plain, text, { tolerance: Number.NaN }), OptionError);
});

test('differences of rows: by hand, and NaN is beyond every tolerance', () => {
  const meter = new DifferenceMeter(0.5);
  meter.add(Float32Array.of(3, 4, 1, 0), Float32Array.of(3, 4, 1, 1), 0, 2);
  meter.add(Float32Array.of(0, 2), Float32Array.of(0, 2), 2, 1);
  const { error, worst, cosine, first } = meter.difference();
  assert.equal(error, Math.sqrt(1 / 30));
  assert.equal(worst, 1);
  assert.equal(cosine, 30 / Math.sqrt(30 * 31));
  assert.equal(first, 1);
  const bad = new DifferenceMeter(1e9);
  bad.add(Float32Array.of(1, 1), Float32Array.of(1, Number.NaN), 7, 1);
  assert.equal(bad.difference().first, 7);
  const equal = new DifferenceMeter(0);
  equal.add(new Float32Array(4), new Float32Array(4), 0, 2);
  assert.deepEqual(equal.difference(), { error: 0, worst: 0, cosine: 1, first: undefined, differs: undefined });
});

test('a report has the verdict, and its numbers as tables and plots', async () => {
  const found = await compareModels(plain, opener(undefined, { quantize: 'q4_0' }), text, { maxTokens: 16 });
  const report = comparisonReport(found, { a: 'f16', b: '<q4>' }, { command: 'lanewise eval compare', machine: [] });
  const [errors, cosines] = report.sections.flatMap(({ chart }) => chart ?? []);
  assert.equal(errors!.series.length, 2);
  assert.deepEqual(
    errors!.series[0]!.points.map(({ x }) => x),
    ['embedding', ...[0, 1, 2, 3, 4, 5].map((i) => `layer ${i}`), 'final', 'logits'],
  );
  assert.ok(cosines!.series[0]!.points.every(({ y }) => y >= 0));
  assert.match(renderMarkdown(report), /They part in embedding, step 0/);
  assert.deepEqual([0, 0.25, 1.5e-7, 0.0123456].map(short), ['0', '0.25', '1.50e-7', '0.0123']);
  assert.deepEqual([1, 0.5, 0.999987, 1 - 1e-12].map(cosineText), ['1', '0.5000', '0.999987', '1']);
});
