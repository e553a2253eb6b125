/** Modules of sentence-transformers: reading their files, and their results. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { activationNamed, activations } from '../../src/embedding/activations.ts';
import { type EmbeddingModules, readModules } from '../../src/embedding/modules.ts';
import { type Pooling, pool } from '../../src/embedding/pooling.ts';
import { readSentenceSettings } from '../../src/embedding/sentence-settings.ts';
import { ModelError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { memoryFolder } from '../../src/formats/bytes.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';

type Files = Readonly<Record<string, unknown>>;

const folderOf = (files: Files) =>
  memoryFolder(
    'model',
    new Map(
      Object.entries(files).map(([path, content]) => [
        path,
        content instanceof Uint8Array ? content : new TextEncoder().encode(JSON.stringify(content)),
      ]),
    ),
  );

/** A .safetensors file of F32 tensors. */
function safeTensors(tensors: Readonly<Record<string, { shape: number[]; values: number[] }>>): Uint8Array {
  const values = Object.values(tensors).flatMap((tensor) => tensor.values);
  let at = 0;
  const header = Object.entries(tensors).map(
    ([
      name,
      {
        shape,
        values: { length },
      },
    ]) => {
      const data_offsets = [at, (at += 4 * length)];
      return [name, { dtype: 'F32', shape, data_offsets }];
    },
  );
  const text = JSON.stringify(Object.fromEntries(header));
  const head = new TextEncoder().encode(text.padEnd(8 * Math.ceil(text.length / 8)));
  const bytes = new Uint8Array(8 + head.length + at);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(head.length), true);
  bytes.set(head, 8);
  bytes.set(new Uint8Array(Float32Array.from(values).buffer), 8 + head.length);
  return bytes;
}

const old = 'sentence_transformers.models.';
const transformer = { idx: 0, name: '0', path: '', type: `${old}Transformer` };
const module = (path: string, type = `${old}${path.slice(2)}`): object => ({ path, type });
const withPooling = (config: unknown): Files => ({
  'modules.json': [transformer, module('1_Pooling')],
  '1_Pooling/config.json': config,
});

async function read(files: Files, dim = 2): Promise<EmbeddingModules> {
  const found = await readModules(folderOf(files), dim);
  if (found instanceof ModelError) throw found;
  return found;
}

const run = ({ modules }: EmbeddingModules, vector: readonly number[]): number[] => [
  ...modules.reduce<Float32Array>((values, apply) => apply(values), Float32Array.from(vector)),
];

test('pooling modes of all versions, alone and joined', async () => {
  const rows: [object, Pooling[]][] = [
    [{ word_embedding_dimension: 2, pooling_mode_cls_token: true, pooling_mode_mean_tokens: false }, ['cls']],
    [
      { pooling_mode_mean_tokens: true, pooling_mode_max_tokens: true, pooling_mode_cls_token: true },
      ['cls', 'max', 'mean'],
    ],
    [{ pooling_mode_lasttoken: true, pooling_mode_weightedmean_tokens: true }, ['weightedmean', 'last']],
    [{ pooling_mode_mean_sqrt_len_tokens: true }, ['mean_sqrt_len_tokens']],
    [{ pooling_mode_mean_tokens: false }, ['mean']],
    [{ pooling_mode_someday: false }, ['mean']],
    [{ embedding_dimension: 2 }, ['mean']],
    [{ pooling_mode: 'cls', pooling_mode_mean_tokens: true }, ['cls']],
    [{ pooling_mode: 'lasttoken' }, ['last']],
    [{ pooling_mode: 'max' }, ['max']],
    [{ pooling_mode: ['mean', 'cls'] }, ['mean', 'cls']],
  ];
  for (const [config, poolings] of rows) {
    const found = await read(withPooling(config));
    assert.deepEqual([found.poolings, found.includePrompt, found.normalize], [poolings, true, false]);
  }
  assert.equal((await read(withPooling({ include_prompt: false }))).includePrompt, false);
  const none = await read({});
  assert.deepEqual([none.poolings, none.normalize], [['mean'], true]);
});

test('type names of all versions', async () => {
  const base = 'sentence_transformers.base.modules.';
  const found = await read({
    'modules.json': [
      { ...transformer, type: `${base}transformer.Transformer` },
      module('1_Pooling', 'sentence_transformers.sentence_transformer.modules.pooling.Pooling'),
      module('2_Dropout', 'sentence_transformers.sentence_transformer.modules.dropout.Dropout'),
      module('3_Normalize', `${base}normalize.Normalize`),
    ],
    '1_Pooling/config.json': { pooling_mode: 'cls' },
    '3_Normalize/config.json': { module_input_name: 'sentence_embedding', module_output_name: 'sentence_embedding' },
  });
  assert.deepEqual([found.poolings, found.normalize, found.modules], [['cls'], true, []]);
});

test('what is not supported is refused by its file and its name', async () => {
  const pooling = withPooling({});
  const dense = (config: object): Files => ({
    ...pooling,
    'modules.json': [transformer, module('1_Pooling'), module('2_Dense')],
    '2_Dense/config.json': { in_features: 2, out_features: 1, bias: false, ...config },
    '2_Dense/model.safetensors': safeTensors({ 'linear.weight': { shape: [1, 2], values: [1, 2] } }),
  });
  await read(dense({}));
  const rows: [Files, RegExp][] = [
    [withPooling({ pooling_mode: 'middle' }), /^model\/1_Pooling\/config\.json: .* found "middle"; name a pooling/],
    [withPooling({ pooling_mode: [] }), /1_Pooling\/config\.json: expected pooling_mode .* found nothing/],
    [withPooling({ pooling_mode: null }), /found null/],
    [withPooling({ pooling_mode_someday: true }), /found pooling_mode_someday/],
    [withPooling({ include_prompt: 'no' }), /include_prompt, found "no"/],
    [withPooling({ embedding_dimension: 3 }), /expected 2, the model's width, as embedding_dimension, found 3/],
    [withPooling([]), /expected an object with the settings of Pooling, found \[\]/],
    [{ 'modules.json': [transformer, module('1_Pooling')] }, /1_Pooling\/config\.json: .*found no such file/],
    [{ 'modules.json': {} }, /^model\/modules\.json: expected a list/],
    [{ 'modules.json': [{ path: '' }] }, /expected modules with a type/],
    [{ 'modules.json': [] }, /found none/],
    [
      { 'modules.json': [{ ...transformer, path: '0_Transformer' }] },
      /beside modules\.json, found it in 0_Transformer/,
    ],
    [{ ...pooling, 'modules.json': [module('1_Pooling'), transformer] }, /in this order, found Pooling, Transformer/],
    [
      { ...pooling, 'modules.json': [transformer, module('1_Pooling'), module('1_Pooling')] },
      /found Transformer, Pooling, Pooling/,
    ],
    [{ 'modules.json': [{ ...transformer, type: 'custom_st.Transformer' }] }, /found custom_st\.Transformer/],
    [
      { 'modules.json': [transformer, module('1_WeightedLayerPooling')] },
      /found sentence_transformers\.models\.WeightedL/,
    ],
    [dense({ in_features: 3 }), /2_Dense\/config\.json: expected in_features 2, the size of the vectors, found 3/],
    [dense({ out_features: 2 }), /2_Dense\/model\.safetensors: expected linear\.weight \[2, 2\] .* found F32 \[1, 2\]/],
    [dense({ out_features: 0.5 }), /positive integer as out_features, found 0\.5/],
    [dense({ bias: true }), /expected linear\.bias \[1\] as F32, F16 or BF16, found no such tensor/],
    [dense({ activation_function: 'my.module.Act' }), /activation_function of torch\.nn .* found "my\.module\.Act"/],
    [
      dense({ activation_function: 'torch.nn.modules.activation.PReLU' }),
      /found "torch\.nn\.modules\.activation\.PReLU"/,
    ],
    [dense({ module_input_name: 'token_embeddings' }), /as module_input_name, found "token_embeddings"/],
    [dense({ use_residual: true }), /expected residual\.weight \[1, 2\]/],
    [{ ...dense({}), '2_Dense/model.safetensors': safeTensors({}) }, /expected linear\.weight .* found no such tensor/],
    [
      {
        ...dense({}),
        '2_Dense/model.safetensors': safeTensors({
          'linear.weight': { shape: [1, 2], values: [1, 1] },
          'linear.bias': { shape: [1], values: [1] },
        }),
      },
      /expected the tensors linear\.weight, found linear\.bias too/,
    ],
    [
      {
        ...dense({}),
        '2_Dense/model.safetensors': safeTensors({ 'linear.weight': { shape: [1, 2], values: [1, Number.NaN] } }),
      },
      /model\.safetensors: linear\.weight: expected finite values, found NaN/,
    ],
  ];
  for (const [files, message] of rows) await assert.rejects(read(files), { name: 'ModelError', message });
  const { '2_Dense/model.safetensors': _, ...unsaved } = dense({});
  await assert.rejects(
    read(unsaved),
    /2_Dense\/model\.safetensors: expected the weights of the module, found no such file/,
  );
  const pickled = { ...unsaved, '2_Dense/pytorch_model.bin': new Uint8Array(4) };
  await assert.rejects(read(pickled), /found pytorch_model\.bin/);
});

test('Dense, LayerNorm and an inner Normalize follow in their order', async () => {
  const files = {
    'modules.json': [
      transformer,
      ...['1_Pooling', '2_Dense', '3_LayerNorm', '4_Normalize', '5_Dense'].map((path) => module(path)),
    ],
    '1_Pooling/config.json': { pooling_mode: ['cls', 'max'] },
    '2_Dense/config.json': { in_features: 4, out_features: 2, activation_function: 'torch.nn.modules.activation.ReLU' },
    '2_Dense/model.safetensors': safeTensors({
      'linear.weight': { shape: [2, 4], values: [1, 2, 3, 4, -1, -1, -1, -1] },
      'linear.bias': { shape: [2], values: [0.5, 2] },
    }),
    '3_LayerNorm/config.json': { dimension: 2 },
    '3_LayerNorm/model.safetensors': safeTensors({
      'norm.weight': { shape: [2], values: [3, 1] },
      'norm.bias': { shape: [2], values: [0, 5] },
    }),
    '5_Dense/config.json': {
      in_features: 2,
      out_features: 1,
      bias: false,
      use_residual: true,
      activation_function: 'torch.nn.modules.linear.Identity',
    },
    '5_Dense/model.safetensors': safeTensors({
      'linear.weight': { shape: [1, 2], values: [10, 0] },
      'residual.weight': { shape: [1, 2], values: [0, 1] },
    }),
  };
  const found = await read(files);
  // Dense: relu(30.5), relu(-8). LayerNorm: 1 * 3, -1 + 5. Normalize: 3/5, 4/5. Dense: 6 + 0.8.
  const [value] = run(found, [1, 2, 3, 4]);
  assert.ok(Math.abs(value! - 6.8) < 1e-6, `${value}`);
  assert.equal(found.normalize, false);
});

test('the dense layer of a DistilBERT of sentence-transformers', async () => {
  const folder = nodeFolder(fileURLToPath(new URL('../golden/modules/distilbert', import.meta.url)));
  const found = await readModules(folder, 48);
  assert.ok(!(found instanceof ModelError));
  assert.deepEqual([found.poolings, found.normalize, found.modules.length], [['cls'], false, 1]);
  const checkpoint = await openCheckpoint(folder, 'expected.safetensors');
  const tensor = async (name: string): Promise<Float32Array> => {
    const { byteLength, readInto } = checkpoint.tensors.get(name)!;
    const bytes = new Uint8Array(byteLength);
    await readInto(0, bytes);
    return new Float32Array(bytes.buffer);
  };
  for (let n = 0; checkpoint.tensors.has(`${n}.embedding`); n++) {
    const rows = await tensor(`${n}.last_hidden_state`);
    const pooled = pool(rows.length / 48, (i) => rows.subarray(48 * i, 48 * (i + 1)), found.poolings[0]!);
    const expected = await tensor(`${n}.embedding`);
    const got = run(found, [...pooled]);
    assert.equal(got.length, expected.length);
    for (const [i, value] of got.entries()) assert.ok(Math.abs(value - expected[i]!) < 1e-6, `${n}: value ${i}`);
  }
  await checkpoint.close();
});

test('pooling: every mode, with and without the tokens of a prompt', () => {
  const rows = [
    [1, 8],
    [2, 4],
    [4, 2],
  ].map((row) => Float32Array.from(row));
  const pooled = (pooling: Pooling, first = 0): number[] => [...pool(3, (i) => rows[i]!, pooling, first)];
  const f32 = (values: number[]): number[] => [...Float32Array.from(values)];
  assert.deepEqual(pooled('cls'), [1, 8]);
  assert.deepEqual(pooled('cls', 1), [2, 4]);
  assert.deepEqual(pooled('last', 1), [4, 2]);
  assert.deepEqual(pooled('max'), [4, 8]);
  assert.deepEqual(pooled('max', 1), [4, 4]);
  assert.deepEqual(pooled('mean'), f32([7 / 3, 14 / 3]));
  assert.deepEqual(pooled('mean', 1), [3, 3]);
  assert.deepEqual(pooled('mean_sqrt_len_tokens', 1), f32([6 / Math.sqrt(2), 6 / Math.sqrt(2)]));
  assert.deepEqual(pooled('weightedmean'), f32([17 / 6, 22 / 6]));
  // Tokens keep the weights of their places.
  assert.deepEqual(pooled('weightedmean', 1), f32([16 / 5, 14 / 5]));
});

test('activations are those of torch.nn', () => {
  const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
  const softplus = (x: number): number => (x > 20 ? x : Math.log1p(Math.exp(x)));
  const clamp = (x: number, low: number, high: number): number => Math.min(Math.max(x, low), high);
  const elu = (x: number): number => (x > 0 ? x : Math.expm1(x));
  const expected: Record<string, (x: number) => number> = {
    Identity: (x) => x,
    Tanh: Math.tanh,
    ReLU: (x) => Math.max(0, x),
    ReLU6: (x) => clamp(x, 0, 6),
    LeakyReLU: (x) => Math.max(x, 0) + 0.01 * Math.min(x, 0),
    Sigmoid: sigmoid,
    SiLU: (x) => x * sigmoid(x),
    Mish: (x) => x * Math.tanh(softplus(x)),
    ELU: elu,
    CELU: elu,
    SELU: (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
    Softplus: softplus,
    LogSigmoid: (x) => -softplus(-x),
    Softsign: (x) => x / (1 + Math.abs(x)),
    Tanhshrink: (x) => x - Math.tanh(x),
    Softshrink: (x) => Math.sign(x) * Math.max(Math.abs(x) - 0.5, 0),
    Hardshrink: (x) => (Math.abs(x) > 0.5 ? x : 0),
    Hardtanh: (x) => clamp(x, -1, 1),
    Hardsigmoid: (x) => clamp(x / 6 + 0.5, 0, 1),
    Hardswish: (x) => x * clamp(x / 6 + 0.5, 0, 1),
  };
  for (const [name, compute] of Object.entries(expected)) {
    const activation = activationNamed(`torch.nn.modules.activation.${name}`)!;
    for (let x = -40; x <= 40; x += 0.37) {
      const [got, want] = [activation(x), compute(x)];
      assert.ok(Math.abs(got - want) <= 1e-9 * (1 + Math.abs(want)), `${name}(${x}) is ${got}, not ${want}`);
    }
  }
  assert.deepEqual([...Object.keys(expected), 'GELU'].sort(), Object.keys(activations).sort());
  // From tables of the normal distribution.
  const gelu = activations.GELU!;
  for (const [x, phi] of [
    [1, 0.8413447460685429],
    [2, 0.9772498680518208],
    [-3, 0.0013498980316300933],
  ] as const)
    assert.ok(Math.abs(gelu(x) - x * phi) < 1e-14, `${gelu(x)}`);
  assert.equal(activationNamed('torch.nn.modules.activation.toString'), undefined);
});

test('lengths, prompts and comparison as the files of sentence-transformers say', async () => {
  const settings = (files: Files) => readSentenceSettings(folderOf(files));
  const plain = await settings({});
  assert.deepEqual([plain.lengthFile, plain.maxTokens, plain.prompts.size], [undefined, undefined, 0]);
  const files = {
    'sentence_bert_config.json': { max_seq_length: 256, do_lower_case: true },
    'config_sentence_transformers.json': {
      prompts: { query: 'query: ', document: null },
      default_prompt_name: 'query',
      similarity_fn_name: 'dot',
    },
  };
  const found = await settings(files);
  assert.deepEqual(
    [found.maxTokens, found.lowerCase, [...found.prompts], found.defaultPrompt, found.similarity, found.problem],
    [
      256,
      true,
      [
        ['query', 'query: '],
        ['document', ''],
      ],
      'query',
      'dot',
      undefined,
    ],
  );
  assert.equal((await settings({ 'sentence_roberta_config.json': { max_seq_length: 12 } })).maxTokens, 12);
  const newer = {
    transformer_task: 'feature-extraction',
    modality_config: { text: { method: 'forward', method_output_name: 'last_hidden_state' } },
    module_output_name: 'token_embeddings',
  };
  const tokenizer = (model_max_length: number): Files => ({
    'sentence_bert_config.json': newer,
    'tokenizer_config.json': { model_max_length },
  });
  assert.equal((await settings(tokenizer(512))).maxTokens, 512);
  assert.equal((await settings(tokenizer(1e30))).maxTokens, undefined);
  assert.equal((await settings(tokenizer(512))).problem, undefined);
  const rows: [Files, RegExp][] = [
    [{ 'sentence_bert_config.json': [] }, /model\/sentence_bert_config\.json: expected an object/],
    [{ 'sentence_bert_config.json': { max_seq_length: 'long' } }, /as max_seq_length, found "long"/],
    [{ 'sentence_bert_config.json': { do_lower_case: 1 } }, /as do_lower_case, found 1/],
    [{ 'config_sentence_transformers.json': { prompts: { a: 1 } } }, /expected texts in prompts, found 1/],
    [{ 'config_sentence_transformers.json': { prompts: [] } }, /expected an object as prompts/],
    [
      { 'config_sentence_transformers.json': { prompts: { a: 'b' }, default_prompt_name: 'c' } },
      /config_sentence_transformers\.json: expected one of the prompts \(a\) as default_prompt_name, found "c"/,
    ],
  ];
  for (const [bad, message] of rows) await assert.rejects(settings(bad), { name: 'ModelError', message });
  for (const changed of [
    { transformer_task: 'fill-mask' },
    { module_output_name: 'sentence_embedding' },
    { modality_config: { text: { method: 'forward', method_output_name: 'pooler_output' } } },
    { modality_config: { image: {} } },
  ]) {
    const { problem } = await settings({ 'sentence_bert_config.json': { ...newer, ...changed } });
    assert.match(String(problem?.message), /sentence_bert_config\.json: expected .*; name a pooling/);
  }
});
