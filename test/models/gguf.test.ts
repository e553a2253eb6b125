/** GGUF files of every family on both backends, against transformers with the same weights; invalid metadata. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { openModel } from '../../src/engine/open.ts';
import { ModelError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { memoryFolder } from '../../src/formats/bytes.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { encodeGgufHeader } from '../../src/formats/gguf-encode.ts';
import type { GgufValue } from '../../src/formats/gguf-types.ts';
import { ggufModel } from '../../src/models/gguf.ts';
import { ggufArchitectures } from '../../src/models/gguf-families.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { load } from '../../src/node.ts';
import { wholeForward } from '../whole-forward.ts';
import { largestDifference } from './support.ts';

const folder = fileURLToPath(new URL('../golden/gguf', import.meta.url));
const files = readdirSync(folder).filter((name) => /\.gguf$/.test(name));

async function expectedOf(model: string, kind: string): Promise<{ ids: number[]; logits: Float32Array }> {
  const checkpoint = await openCheckpoint(nodeFolder(folder), `${model}.expected.safetensors`);
  const read = async (name: string): Promise<ArrayBuffer> => {
    const tensor = checkpoint.tensors.get(name)!;
    const bytes = new Uint8Array(tensor.byteLength);
    await tensor.readInto(0, bytes);
    return bytes.buffer;
  };
  const [ids, logits] = [new Int32Array(await read('input_ids')), new Float32Array(await read(`${kind}.logits`))];
  await checkpoint.close();
  return { ids: [...ids], logits };
}

const norm = (values: Float32Array): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
const relativeDifference = (actual: Float32Array, expected: Float32Array): number =>
  norm(actual.map((value, i) => value - expected[i]!)) / norm(expected);

type BackendName = 'wasm' | 'reference';

async function logitsOf(file: string, ids: number[], backend: BackendName, quantize?: string): Promise<Float32Array> {
  await using model = await load(`${folder}/${file}`, { inline: true, backend, threads: 2, quantize });
  return (await wholeForward(model, ids)).get('logits')!.values;
}

/** Every weight as the f32 values that the file stands for. */
const widen = 'none,attention=f32,ffn=f32,output=f32,embedding=f32';

/** Tolerance with block types, which quantize activations too; llama.cpp has an error of 2e-2 for the same reason. */
const quantizedTolerance = 4e-2;

for (const file of files) {
  const [, model, kind] = /^(.*)-(\w+)\.gguf$/.exec(file)!;
  for (const backend of ['reference', 'wasm'] as const) {
    test(`${file}, ${backend}: logits of transformers on the file's own weights`, async () => {
      const { ids, logits } = await expectedOf(model!, kind!);
      const actual = await logitsOf(file, ids, backend);
      if (/^f(16|32)$/.test(kind!)) {
        const off = largestDifference(actual, logits);
        assert.ok(off <= (model === 'gemma3' ? 1e-3 : 2e-4), `off by ${off}`);
      } else {
        const off = relativeDifference(actual, logits);
        assert.ok(off <= quantizedTolerance, `off by ${off}`);
        const widened = largestDifference(await logitsOf(file, ids, backend, widen), logits);
        assert.ok(widened <= 2e-4, `widened: off by ${widened}`);
      }
    });
  }
}

/** The model read from a file with changed metadata or tensors. */
async function rebuilt(
  file: string,
  change: (metadata: Map<string, GgufValue>, tensors: Map<string, unknown>) => void,
) {
  const checkpoint = await openGguf(nodeFolder(folder), file);
  try {
    const [metadata, tensors] = [new Map(checkpoint.metadata), new Map(checkpoint.tensors)];
    change(metadata, tensors);
    const model = ggufModel({ name: file, metadata, tensors, ropeFactors: new Map() });
    return buildModel(model.config, model.tensors, { policy: parsePolicy('none'), origin: model.origin });
  } finally {
    await checkpoint.close();
  }
}

const u32 = (value: number): GgufValue => ({ type: 'uint32', value });
const f32 = (value: number): GgufValue => ({ type: 'float32', value });

test('blocks of types with kernels stay as they are in the file', async () => {
  for (const kind of ['q8_0', 'q4_0', 'iq4_nl', 'q6_k']) {
    const { plan } = await rebuilt(`llama-256-${kind}.gguf`, () => {});
    const matrices = plan.weights.filter(({ storage }) => storage === kind);
    assert.ok(matrices.length > 10, `${kind}: ${matrices.length}`);
    assert.ok(plan.weights.every(({ storage }) => ['f32', 'q6_k', kind].includes(storage)));
  }
});

test('metadata that describe no model are refused by the name of the key', async () => {
  const cases: [string, GgufValue | undefined][] = [
    ['llama.attention.head_count', u32(0)],
    ['llama.attention.head_count', undefined],
    ['llama.attention.head_count', { type: 'string', value: '4' }],
    ['llama.attention.head_count', f32(4)],
    ['llama.attention.head_count', u32(6)],
    ['llama.attention.head_count_kv', u32(0)],
    ['llama.attention.head_count_kv', u32(3)],
    ['llama.attention.head_count_kv', { type: 'array', of: 'uint32', value: Uint32Array.of(2, 1) }],
    ['llama.embedding_length', u32(65)],
    ['llama.block_count', u32(0)],
    ['llama.block_count', u32(2 ** 31)],
    ['llama.block_count', u32(1000)],
    ['llama.block_count', { type: 'uint64', value: 2n ** 64n - 1n }],
    ['llama.context_length', u32(0)],
    ['llama.attention.layer_norm_rms_epsilon', f32(Number.NaN)],
    ['llama.attention.layer_norm_rms_epsilon', u32(1)],
    ['llama.rope.freq_base', f32(Number.POSITIVE_INFINITY)],
    ['llama.rope.freq_base', f32(-1)],
    ['llama.attention.key_length', { type: 'int32', value: -8 }],
    ['llama.attention.value_length', u32(8)],
    ['llama.rope.dimension_count', u32(8)],
    ['llama.rope.scaling.type', { type: 'string', value: 'magic' }],
    ['tokenizer.ggml.bos_token_id', { type: 'int32', value: -1 }],
    ['general.architecture', undefined],
    ['general.architecture', u32(1)],
  ];
  for (const [key, value] of cases) {
    const change = (metadata: Map<string, GgufValue>): void => {
      if (value === undefined) metadata.delete(key);
      else metadata.set(key, value);
    };
    await assert.rejects(rebuilt('llama-f32.gguf', change), (error) => {
      assert.ok(error instanceof ModelError, `${key}: ${error}`);
      const named = key === 'llama.embedding_length' ? 'llama.attention.head_count' : key;
      assert.ok(error.message.startsWith(`llama-f32.gguf: ${named} must be `), error.message);
      return true;
    });
  }
  const other: GgufValue = { type: 'string', value: 'unheard-of' };
  await assert.rejects(
    rebuilt('llama-f32.gguf', (metadata) => metadata.set('general.architecture', other)),
    {
      code: 'UnknownModelType',
    },
  );
});

test('all tensors that do not fit are named in one error', async () => {
  const change = (_: unknown, tensors: Map<string, unknown>): void => {
    tensors.delete('blk.0.attn_q.weight');
    tensors.set('blk.1.ffn_up.weight', { dtype: 'F32', shape: [160, 63] });
    tensors.set('blk.7.surprise', { dtype: 'F32', shape: [1] });
  };
  await assert.rejects(rebuilt('llama-f32.gguf', change), (error) => {
    assert.ok(error instanceof ModelError);
    assert.match(error.message, /^3 tensors do not fit llama-f32\.gguf:/);
    assert.deepEqual(error.problems, [
      'blk.0.attn_q.weight: expected [64, 64], missing',
      'blk.1.ffn_up.weight: expected [160, 64], found [160, 63]',
      'blk.7.surprise: not expected, found [1]',
    ]);
    return true;
  });
});

test('no change of the metadata does more harm than an error', async () => {
  const checkpoint = await openGguf(nodeFolder(folder), 'llama-f32.gguf');
  await checkpoint.close();
  const { metadata, tensors } = checkpoint;
  const keys = [...metadata.keys()].filter((key) => !key.startsWith('tokenizer.ggml.t'));
  const names = [...tensors.keys()];
  const value: fc.Arbitrary<GgufValue> = fc.oneof(
    fc.constantFrom(0, 1, 2, 3, 64, 2 ** 24, 2 ** 31).map(u32),
    fc.double().map(f32),
    fc.string().map((value): GgufValue => ({ type: 'string', value })),
    fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map((value): GgufValue => ({ type: 'int64', value })),
    fc.int32Array({ maxLength: 3 }).map((value): GgufValue => ({ type: 'array', of: 'int32', value })),
  );
  const shapes = fc.array(fc.constantFrom(0, 1, 63, 64, 480, 2 ** 40), { maxLength: 4 });
  const changes = fc.record({
    metadata: fc.array(fc.tuple(fc.constantFrom(...keys, 'llama.expert_count', 'llama.attention.key_length'), value), {
      maxLength: 3,
    }),
    architecture: fc.option(fc.constantFrom(...ggufArchitectures), { nil: undefined }),
    shape: fc.option(fc.tuple(fc.constantFrom(...names), shapes), { nil: undefined }),
  });
  let built = 0;
  const property = fc.property(changes, ({ metadata: values, architecture, shape }) => {
    const changed = new Map([...metadata, ...values]);
    if (architecture) {
      for (const [key, value] of metadata) changed.set(key.replace(/^llama\./, `${architecture}.`), value);
      changed.set('general.architecture', { type: 'string', value: architecture });
    }
    const shaped = new Map<string, { dtype: string; shape: readonly number[] }>(tensors);
    if (shape) shaped.set(shape[0], { dtype: 'F32', shape: shape[1] });
    try {
      const model = ggufModel({ name: 'x', metadata: changed, tensors: shaped, ropeFactors: new Map() });
      buildModel(model.config, model.tensors, { policy: parsePolicy('none'), origin: model.origin });
      built++;
    } catch (error) {
      assert.ok(error instanceof ModelError, `${error instanceof Error ? error.stack : error}`);
    }
  });
  fc.assert(property, { numRuns: 2000 });
  assert.ok(built > 0, 'some changes do no harm');
});

test('per-layer lists of one value, rope scaling and windows are read', async () => {
  const plain = await rebuilt('llama-f32.gguf', () => {});
  const { config, plan } = await rebuilt('llama-f32.gguf', (metadata) => {
    metadata.set('llama.attention.head_count', { type: 'array', of: 'int32', value: Int32Array.of(4, 4) });
    metadata.set('llama.rope.scaling.type', { type: 'string', value: 'linear' });
    metadata.set('llama.rope.scaling.factor', f32(4));
  });
  assert.equal(config.heads, 4);
  assert.equal(plan.ropes[0]!.frequencies[1], plain.plan.ropes[0]!.frequencies[1]! / 4);
  const windowOf = async (value: number): Promise<number | undefined> => {
    const { plan } = await rebuilt('llama-f32.gguf', (metadata) =>
      metadata.set('llama.attention.sliding_window', u32(value)),
    );
    return plan.caches[0]!.window;
  };
  assert.deepEqual([await windowOf(9), await windowOf(0)], [9, undefined]);
});

test('a folder means its one GGUF file, unless it has other weights with a config.json', async () => {
  const gguf = await readFile(`${folder}/llama-f32.gguf`);
  const [text, nothing] = [new TextEncoder().encode('{}'), new Uint8Array(0)];
  const filesOf = async (names: Record<string, Uint8Array>): Promise<readonly string[]> => {
    const model = await openModel(memoryFolder('f', new Map(Object.entries(names))));
    await model.close();
    return model.files;
  };
  assert.deepEqual(await filesOf({ 'a.gguf': gguf }), ['a.gguf']);
  assert.deepEqual(await filesOf({ 'a.gguf': gguf, 'config.json': text }), ['a.gguf']);
  assert.deepEqual(await filesOf({ 'a.gguf': gguf, 'model.safetensors': nothing }), ['a.gguf']);
  await assert.rejects(filesOf({ 'a.gguf': gguf, 'b.gguf': gguf }), { code: 'AmbiguousCheckpoint' });
  const both = { 'a.gguf': gguf, 'config.json': text, 'model.safetensors': nothing };
  await assert.rejects(filesOf(both), { code: 'HeaderTooSmall' });
  await assert.rejects(filesOf({ 'config.json': text }), { code: 'NoCheckpoint' });
  await assert.rejects(filesOf({}), { code: 'NoConfig' });
});

test('experts in tensors of their own, as files of 2023 have them', async () => {
  const { plan } = await rebuilt('mixtral-f32.gguf', (_, tensors) => {
    for (const [name, tensor] of [...tensors]) {
      if (!name.endsWith('_exps.weight')) continue;
      const [experts, ...shape] = (tensor as { shape: number[] }).shape;
      tensors.delete(name);
      for (let e = 0; e < experts!; e++) tensors.set(name.replace('_exps', `.${e}`), { dtype: 'F16', shape });
    }
  });
  assert.equal(plan.weights.filter(({ storage }) => storage === 'f16').length, 2 * 4 * 3);
});

test('q, k and v in one tensor are the layers that they hold', async () => {
  const checkpoint = await openGguf(nodeFolder(folder), 'llama-f32.gguf');
  await checkpoint.close();
  const tensors = new Map<string, { dtype: string; shape: readonly number[] }>(checkpoint.tensors);
  for (const layer of [0, 1]) {
    for (const part of ['q', 'k', 'v']) tensors.delete(`blk.${layer}.attn_${part}.weight`);
    tensors.set(`blk.${layer}.attn_qkv.weight`, { dtype: 'F32', shape: [128, 64] });
  }
  const { metadata } = checkpoint;
  const model = ggufModel({ name: 'fused', metadata, tensors, ropeFactors: new Map() });
  buildModel(model.config, model.tensors, { policy: parsePolicy('none'), origin: model.origin });
  const places = ['q', 'k', 'v'].map((part) => {
    const { view } = model.tensors.get(`model.layers.1.self_attn.${part}_proj.weight`)!;
    return [view.source, view.firstRow, view.shape, view.rows?.run];
  });
  assert.deepEqual(places, [
    ['blk.1.attn_qkv.weight', 0, [64, 64], 1],
    ['blk.1.attn_qkv.weight', 64, [32, 64], 1],
    ['blk.1.attn_qkv.weight', 96, [32, 64], undefined],
  ]);
});

test('a file that belongs to a model and is none is called what it is, with the model beside it', async () => {
  const text = (value: string): GgufValue => ({ type: 'string', value });
  for (const [metadata, message] of [
    [
      [['general.architecture', text('clip')]],
      /^x\.gguf: expected a model, found the part .*\(mmproj\); give .*: a\.gguf$/,
    ],
    [
      [
        ['general.architecture', text('llama')],
        ['general.type', text('adapter')],
      ],
      /found an adapter \(LoRA\) to a model/,
    ],
    [
      [
        ['general.architecture', text('llama')],
        ['general.type', text('imatrix')],
      ],
      /found an importance matrix/,
    ],
  ] as const) {
    const file = { name: 'x.gguf', metadata: new Map(metadata), tensors: new Map(), ropeFactors: new Map() };
    assert.throws(() => ggufModel({ ...file, beside: ['a.gguf'] }), { code: 'NotTheModel', message });
  }
});

test('the projector of a model that lies beside it is not taken for the model', async () => {
  const model = new Uint8Array(await readFile(`${folder}/llama-f32.gguf`));
  const { bytes } = encodeGgufHeader(
    [{ name: 'v.patch_embd.weight', dtype: 'F32', shape: [8] }],
    new Map([['general.architecture', { type: 'string', value: 'clip' }]]),
  );
  const projector = new Uint8Array([...bytes, ...new Uint8Array(32)]);
  const both = memoryFolder(
    'f',
    new Map([
      ['m.gguf', model],
      ['mmproj-f16.gguf', projector],
    ]),
  );
  const opened = await openModel(both);
  assert.deepEqual(opened.files, ['m.gguf']);
  await opened.close();
  await assert.rejects(openModel(both, 'mmproj-f16.gguf'), {
    code: 'NotTheModel',
    message: /^f\/mmproj-f16\.gguf: .*: m\.gguf$/,
  });
  const alone = memoryFolder('f', new Map([['mmproj-f16.gguf', projector]]));
  await assert.rejects(openModel(alone), { code: 'NotTheModel', message: /^f\/mmproj-f16\.gguf: / });
});
