/** Quantization by calibration: second moments, error feedback, whole models. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { Algebra, type Moments } from '../../src/calibrate/algebra.ts';
import { type CalibratedStorage, calibratedTypes } from '../../src/calibrate/calibrate.ts';
import { encodeBlocks } from '../../src/calibrate/encode.ts';
import { embeddedModel, load, loadEncoder, quantizeModel } from '../../src/node.ts';
import { weightTypes } from '../../src/quant/ggml.ts';
import { wholeForward } from '../whole-forward.ts';

const golden = fileURLToPath(new URL('../golden/models', import.meta.url));
const scratch = await mkdtemp(join(tmpdir(), 'lanewise-calibrate-'));
after(() => rm(scratch, { recursive: true }));

/** Numbers from -1 to 1, the same in every run. */
function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Rows whose columns depend on each other, as hidden states do. */
function inputs(rows: number, width: number, seed = 1): Float32Array {
  const next = noise(seed);
  const out = new Float32Array(rows * width);
  for (let r = 0; r < rows; r++) {
    const common = next();
    for (let k = 0; k < width; k++) out[r * width + k] = next() * (1 + (k % 7)) + 2 * common * Math.sin(k);
  }
  return out;
}

const randomRows = (rows: number, width: number): Float32Array => {
  const next = noise(9);
  return Float32Array.from({ length: rows * width }, () => 0.1 * (next() + next() + next()));
};

async function withAlgebra<T>(
  threads: number,
  use: (algebra: Algebra) => Promise<T>,
  types: readonly CalibratedStorage[] = ['q4_0'],
): Promise<T> {
  const host = nodeHost();
  const algebra = await Algebra.open(host, { threads, wide: chooseKernels(host).wide, types });
  try {
    return await use(algebra);
  } finally {
    await algebra.close();
  }
}

/** Sum over rows x of |(w - q) x|^2, for all rows of the weight. */
function outputError(w: Float32Array, q: Float32Array, x: Float32Array, width: number): number {
  let sum = 0;
  for (let row = 0; row < w.length; row += width)
    for (let t = 0; t < x.length; t += width) {
      let dot = 0;
      for (let k = 0; k < width; k++) dot += (w[row + k]! - q[row + k]!) * x[t + k]!;
      sum += dot * dot;
    }
  return sum;
}

const types = calibratedTypes as CalibratedStorage[];
const plain = (type: CalibratedStorage, values: Float32Array): Float32Array => {
  const { quantize, dequantize } = weightTypes[type];
  return dequantize(quantize!(values));
};

test('moments are sums of products of columns', async () => {
  const [rows, width] = [300, 96];
  const x = inputs(rows, width);
  const { values } = await withAlgebra(2, (algebra) => algebra.moments(width, [x]));
  for (const [i, j] of [
    [0, 0],
    [3, 17],
    [40, 41],
    [16, 95],
  ] as const) {
    let sum = 0;
    for (let t = 0; t < rows; t++) sum += x[t * width + i]! * x[t * width + j]!;
    const found = values[(j >> 4) * width * 16 + i * 16 + (j & 15)]!;
    assert.ok(Math.abs(found - sum) < 1e-3 * (1 + Math.abs(sum)), `${i}, ${j}: ${found}, not ${sum}`);
  }
});

for (const type of types) {
  test(`${type} with error feedback changes outputs less than plain rounding`, async () => {
    const width = weightTypes[type].block === 256 ? 512 : 288;
    const x = inputs(600, width);
    const w = randomRows(21, width);
    const bytes = await withAlgebra(
      2,
      async (algebra) => {
        await algebra.factor(await algebra.moments(width, [x]), 0.01, 'test');
        return encodeBlocks(type, await algebra.quantize(type, w));
      },
      [type],
    );
    const q = weightTypes[type].dequantize(bytes);
    assert.equal(q.length, w.length);
    const [with_, without] = [outputError(w, q, x, width), outputError(w, plain(type, w), x, width)];
    assert.ok(with_ < 0.75 * without, `${with_} against ${without}`);
  });
}

test('each code is the one nearest to its target, which carries the errors of the columns behind it', async () => {
  const width = 64;
  const x = inputs(200, width);
  const w = randomRows(16, width);
  const { moments, bytes } = await withAlgebra(1, async (algebra) => {
    const found = await algebra.moments(width, [x]);
    await algebra.factor(found, 0.01, 'test');
    return { moments: found, bytes: encodeBlocks('q4_0', await algebra.quantize('q4_0', w)) };
  });
  const u = factorOf(moments, 0.01);
  const q = weightTypes.q4_0.dequantize(bytes);
  let [checked, off] = [0, 0];
  for (let row = 0; row < 16; row++) {
    for (let k = width - 1; k >= 0; k--) {
      let target = w[row * width + k]!;
      for (let j = k + 1; j < width; j++)
        target += (u[k * width + j]! / u[k * width + k]!) * (w[row * width + j]! - q[row * width + j]!);
      const block = (row * width + k) >> 5;
      const scale = new DataView(bytes.buffer).getUint16(block * 18, true);
      const d = weightTypes.f16.dequantize(Uint8Array.of(scale & 255, scale >> 8))[0]!;
      const nearest = Math.max(-8, Math.min(7, Math.round(target / d)));
      checked++;
      if (Math.abs(q[row * width + k]! - d * nearest) > 1e-6) off++;
    }
  }
  assert.ok(off <= 0.01 * checked, `${off} of ${checked} codes are not the nearest`);
});

/** The U with U^T U = H + damping, by the textbook, in f64. */
function factorOf({ width, values }: Moments, damping: number): Float64Array {
  const at = (i: number, j: number): number => values[(j >> 4) * width * 16 + i * 16 + (j & 15)]!;
  const mean = Array.from({ length: width }, (_, k) => at(k, k)).reduce((a, b) => a + b, 0) / width;
  const u = new Float64Array(width * width);
  for (let i = 0; i < width; i++)
    for (let j = i; j < width; j++) {
      let sum = at(i, j) + (i === j ? damping * mean : 0);
      for (let k = 0; k < i; k++) sum -= u[k * width + i]! * u[k * width + j]!;
      u[i * width + j] = i === j ? Math.sqrt(sum) : sum / u[i * width + i]!;
    }
  return u;
}

test('weights make up for inputs that the layers before them have changed', async () => {
  const [rows, width] = [700, 96];
  const before = inputs(rows, width);
  const next = noise(4);
  // Each input loses a share of its neighbour, and has noise.
  const now = before.map((value, i) => value - 0.2 * before[(i + 1) % before.length]! + 0.1 * next());
  const w = randomRows(20, width);
  const make = (algebra: Algebra, moments: Moments): Promise<Float32Array> =>
    algebra.factor(moments, 1e-4, 'test').then(async () => {
      const codes = await algebra.quantize('q8_0', w);
      return weightTypes.q8_0.dequantize(encodeBlocks('q8_0', codes));
    });
  const results = async (threads: number): Promise<Float32Array[]> =>
    withAlgebra(
      threads,
      async (algebra) => [
        await make(algebra, await algebra.moments(width, [now])),
        await make(algebra, await algebra.changedMoments(width, now, before)),
      ],
      ['q8_0'],
    );
  const [plainly, corrected] = (await results(2)) as [Float32Array, Float32Array];
  const loss = (q: Float32Array): number => {
    let sum = 0;
    for (let row = 0; row < w.length; row += width)
      for (let t = 0; t < now.length; t += width) {
        let difference = 0;
        for (let k = 0; k < width; k++) difference += w[row + k]! * before[t + k]! - q[row + k]! * now[t + k]!;
        sum += difference * difference;
      }
    return sum;
  };
  assert.ok(loss(corrected) < 0.1 * loss(plainly), `${loss(corrected)} against ${loss(plainly)}`);
  assert.deepEqual((await results(1))[1], corrected, 'threads change no bit');
});

test('fewer inputs than columns, columns of zeros and rows of zeros are no obstacle', async () => {
  const width = 128;
  const x = inputs(20, width);
  for (let t = 0; t < 20; t++) x[t * width + 5] = 0;
  const w = randomRows(17, width);
  w.fill(0, width, 2 * width);
  const { q, damping } = await withAlgebra(2, async (algebra) => {
    const moments = await algebra.moments(width, [x]);
    const used = await algebra.factor(moments, 0, 'test');
    const codes = await algebra.quantize('q4_0', w);
    return { q: weightTypes.q4_0.dequantize(encodeBlocks('q4_0', codes)), damping: used };
  });
  assert.ok(damping > 0, 'a singular matrix needs damping');
  assert.ok(q.every(Number.isFinite));
  assert.ok(q.subarray(width, 2 * width).every((value) => value === 0));
  assert.ok(outputError(w, q, x, width) < outputError(w, plain('q4_0', w), x, width));
});

test('inputs that are not finite are refused', async () => {
  const x = inputs(64, 32);
  x[40] = Number.NaN;
  await assert.rejects(
    withAlgebra(1, async (algebra) => algebra.factor(await algebra.moments(32, [x]), 0.01, 'layers.0.ffn.up')),
    { code: 'NotFinite', message: /layers\.0\.ffn\.up: expected finite/ },
  );
});

const story =
  'Once upon a time there was a little fox who lived by the river. Every day the fox walked to the old mill. ';
const text = { text: story.repeat(40), name: 'story.txt' };

test('threads change no bit of a calibrated file', async () => {
  const files: Uint8Array[] = [];
  for (const threads of [1, 3]) {
    const file = join(scratch, `threads-${threads}.gguf`);
    const calibrate = { ...text, tokens: 256 };
    await quantizeModel(join(golden, 'llama-gqa-f16'), file, { to: 'q4_0', calibrate, threads });
    files.push(await readFile(file));
  }
  assert.deepEqual(files[0], files[1]);
});

test('a calibrated model is closer to the original on other text than a rounded one', async () => {
  const logits = async (path: string, quantize: string): Promise<Float32Array> => {
    await using model = await load(path, { inline: true, quantize });
    const ids = model.encode(
      'The hen and the goat went to the market. "What shall we buy?" asked the hen. They bought a red kite, and',
    );
    return (await wholeForward(model, ids)).get('logits')!.values;
  };
  const [calibrated, rounded] = [join(scratch, 'calibrated.gguf'), join(scratch, 'rounded.gguf')];
  const stories = await storiesOfModel();
  const report = await quantizeModel(embeddedModel, calibrated, {
    to: 'q4_0',
    calibrate: { ...stories, tokens: 512 },
  });
  await quantizeModel(embeddedModel, rounded, { to: 'q4_0' });
  assert.match(report.tensors.find(({ name }) => name === 'blk.0.attn_qkv.weight')!.reason, /calibrated$/);
  const truth = await logits(embeddedModel, 'f32');
  const vocab = 4096;
  const [with_, without] = [
    divergence(truth, await logits(calibrated, 'none'), vocab),
    divergence(truth, await logits(rounded, 'none'), vocab),
  ];
  assert.ok(with_ < without, `KL ${with_} against ${without}`);
});

test('embeddings of a calibrated encoder are closer to the original than those of a rounded one', async () => {
  const source = join(golden, '../encoders/bert');
  const [calibrated, rounded] = [join(scratch, 'bert.gguf'), join(scratch, 'bert-rounded.gguf')];
  const fox = text.text;
  const many = Array.from({ length: 20 }, (_, i) => fox.slice(7 * i, 7 * i + 300)).join(' ');
  await quantizeModel(source, calibrated, { to: 'q4_0', calibrate: { text: many, name: 'fox.txt' }, threads: 1 });
  await quantizeModel(source, rounded, { to: 'q4_0' });
  const embed = async (path: string, quantize: string): Promise<Float32Array[]> => {
    await using encoder = await loadEncoder(path, { inline: true, threads: 1, quantize });
    const sentences = Array.from({ length: 30 }, (_, i) => fox.slice(5 * i + 3, 5 * i + 60));
    return (await encoder.embed(sentences)).map(({ embedding }) => embedding);
  };
  const truth = await embed(source, 'f32');
  const distance = async (path: string): Promise<number> => {
    const found = await embed(path, 'none');
    return found.reduce((sum, row, i) => sum + cosineDistance(row, truth[i]!), 0) / found.length;
  };
  const [with_, without] = [await distance(calibrated), await distance(rounded)];
  assert.ok(with_ < without, `${with_} against ${without}`);
});

function cosineDistance(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return 1 - dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Text by the embedded model itself. */
async function storiesOfModel(): Promise<{ text: string; name: string }> {
  await using model = await load(embeddedModel, { inline: true });
  const prompts = [
    'Once upon a time',
    'The old king',
    'A small boat',
    'In the forest',
    'On a cold morning',
    'There was a girl',
  ];
  const texts = await model.generateBatch(prompts, { maxTokens: 200, temperature: 1, seed: 3 });
  return { text: texts.map(({ text: made }, i) => prompts[i] + made).join('\n\n'), name: 'stories' };
}

/** Mean KL divergence of the distributions of logits. */
function divergence(truth: Float32Array, other: Float32Array, vocab: number): number {
  const sumOf = (x: Float32Array, at: number): number => {
    let sum = 0;
    for (let i = 0; i < vocab; i++) sum += Math.exp(x[at + i]!);
    return Math.log(sum);
  };
  let total = 0;
  for (let at = 0; at < truth.length; at += vocab) {
    const [a, b] = [sumOf(truth, at), sumOf(other, at)];
    for (let i = 0; i < vocab; i++) {
      const p = truth[at + i]! - a;
      total += Math.exp(p) * (p - other[at + i]! + b);
    }
  }
  return total / (truth.length / vocab);
}

test('text that is too short and output without blocks are refused', async () => {
  const short = { text: 'Too short.', name: 'short.txt' };
  await assert.rejects(quantizeModel(embeddedModel, join(scratch, 'a.gguf'), { to: 'q4_0', calibrate: short }), {
    code: 'InvalidOption',
    message: /calibrate must be a text of at least 128 tokens/,
  });
  await assert.rejects(quantizeModel(embeddedModel, join(scratch, 'a.safetensors'), { to: 'f16', calibrate: text }), {
    code: 'InvalidOption',
    message: /\.safetensors/,
  });
});
