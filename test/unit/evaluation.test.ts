/** Perplexity and divergence of predictions, against numbers of another implementation in f64 (test/golden/evaluation). */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import fc from 'fast-check';
import { divergeRows } from '../../src/evaluation/rows.ts';
import { tokensOf, windowsOf } from '../../src/evaluation/windows.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import {
  divergence,
  embeddedModel,
  load,
  type Model,
  OptionError,
  perplexity,
  writeSafeTensorsParts,
} from '../../src/node.ts';
import { withMatrices } from './changed-model.ts';

const golden = new URL('../golden/evaluation/', import.meta.url);
const text = await readFile(new URL('alice.txt', golden), 'utf8');
const expected = JSON.parse(await readFile(new URL('expected.json', golden), 'utf8'));
const folder = await mkdtemp(join(tmpdir(), 'lanewise-evaluation-'));
const open: Model[] = [];
after(async () => {
  for (const model of open) await model.dispose();
  await rm(folder, { recursive: true });
});

async function opened(path = embeddedModel, options: Parameters<typeof load>[1] = {}): Promise<Model> {
  const model = await load(path, { inline: true, quantize: 'none', threads: 2, ...options });
  open.push(model);
  return model;
}

const model = await opened();

for (const { contextLength, stride, ...numbers } of expected.cases) {
  test(`perplexity is that of the reference: windows of ${contextLength}, stride ${stride}`, async () => {
    const progress: number[] = [];
    const onProgress = (done: number, total: number): void => {
      assert.equal(total, numbers.scored);
      progress.push(done);
    };
    const found = await perplexity(model, text, { contextLength, stride, onProgress });
    for (const name of ['windows', 'scored'] as const) assert.equal(found[name], numbers[name]);
    for (const name of ['perplexity', 'loss', 'lossError', 'accuracy'] as const)
      assert.ok(Math.abs(found[name] / numbers[name] - 1) < 1e-5, `${name} ${found[name]}, expected ${numbers[name]}`);
    assert.ok(Math.abs(found.standardError / (found.perplexity * found.lossError) - 1) < 1e-12);
    assert.equal(found.tokens, expected.tokens);
    assert.equal(progress.at(-1), numbers.scored);
    assert.deepEqual(
      progress,
      progress.toSorted((a, b) => a - b),
    );
  });
}

test('perplexity has the same bits in a thread of its own, for other threads, and as the sum of scores', async () => {
  const options = { contextLength: 128, stride: 100, maxTokens: 300 };
  const here = await perplexity(model, text, options);
  const hosted = await load(embeddedModel, { quantize: 'none', threads: 1 });
  open.push(hosted);
  assert.deepEqual(await perplexity(hosted, text, options), here);
  const ids = tokensOf(model, text, { maxTokens: 100 });
  let sum = 0;
  let next = 1;
  for await (const { start, logProbs } of hosted.score(ids)) {
    assert.equal(start, next);
    next += logProbs.length;
    for (const logProb of logProbs) sum -= logProb;
  }
  assert.equal(next, ids.length);
  const { loss } = await perplexity(model, ids);
  assert.ok(Math.abs(sum / (ids.length - 1) - loss) < 1e-12);
});

test('the divergence of a model with rounded matrices is that of the reference, and names the worst token', async () => {
  const path = join(folder, 'rounded');
  await withMatrices(embeddedModel, path, (name) => /^transformer\.h\.1\..*weight$/.test(name), roundHalfToEven);
  const rounded = await opened(path);
  const { tokens, mean, p50, p99, max, position, agreement } = expected.rounded;
  const found = await divergence(model, rounded, text, { maxTokens: tokens, worst: 3 });
  const { kl } = found;
  for (const [name, value, number] of [
    ['mean', kl.mean, mean],
    ['p50', kl.p50, p50],
    ['p99', kl.p99, p99],
    ['max', kl.max, max],
    ['agreement', found.agreement, agreement],
  ] as const)
    assert.ok(Math.abs(value / number - 1) < 1e-3, `${name} ${value}, expected ${number}`);
  assert.equal(found.scored, tokens - 1);
  assert.equal(found.worst.length, 3);
  const [worst] = found.worst;
  assert.equal(worst!.position, position);
  assert.equal(worst!.kl, kl.max);
  const ids = tokensOf(model, text);
  assert.equal(worst!.id, ids[position]);
  assert.ok(text.includes(worst!.context!) && text.includes(`${worst!.context}${worst!.text}`));
  assert.deepEqual(
    found.worst.map(({ kl }) => kl),
    found.worst.map(({ kl }) => kl).toSorted((a, b) => b - a),
  );
  const plain = await perplexity(model, text, { maxTokens: tokens });
  assert.ok(Math.abs(found.perplexityA / plain.perplexity - 1) < 1e-6);
  assert.ok(Math.abs(found.lossDifference - Math.log(found.perplexityB / found.perplexityA)) < 1e-9);
});

test('a model does not diverge from itself, however it is loaded', async () => {
  const reference = await opened(embeddedModel, { threads: 1, revectorize: false });
  const found = await divergence(model, reference, text, { maxTokens: 150, contextLength: 64, stride: 50 });
  assert.deepEqual(found.kl, { mean: 0, standardError: 0, p50: 0, p99: 0, max: 0 });
  assert.deepEqual([found.agreement, found.lossDifference], [1, 0]);
});

test('models with other tokens are not compared', async () => {
  const other = await opened(join(import.meta.dirname, '../golden/models/gpt2-wide'));
  await assert.rejects(divergence(model, other, text), (error: Error) => {
    assert.ok(error instanceof OptionError);
    assert.match(error.message, /^B must be a model with the tokens of .*lanewise-stories/);
    return true;
  });
});

test('texts that cannot be scored, and windows that do not fit, are errors that say what to give', async () => {
  for (const bad of ['', 'a', [], [5]])
    await assert.rejects(perplexity(model, bad), /^OptionError: text must be at least two tokens long/);
  await assert.rejects(perplexity(model, [1, 99_999]), /tokenIds must be made of integers from 0 to 4095/);
  const options = [
    [{ stride: 0 }, /stride must be an integer from 1 to 512/],
    [{ stride: 200, contextLength: 100 }, /stride must be an integer from 1 to 100, the window/],
    [{ contextLength: 513 }, /contextLength must be an integer from 2 to 512/],
    [{ maxTokens: 1 }, /maxTokens must be an integer of at least 2/],
    [{ contextLength: 1.5 }, /contextLength must be/],
  ] as const;
  for (const [given, message] of options) await assert.rejects(perplexity(model, text, given), message);
  await assert.rejects(divergence(model, model, text, { worst: -1 }), /worst must be an integer of at least 0/);
  assert.throws(() => model.score([1, 2, 3], { from: 3 }), /from must be an integer from 1 to 2/);
  assert.throws(() => model.forward([]), /tokenIds must be at least one token/);
});

test('a reader that stops ends a forward, and a signal rejects with its reason', async () => {
  const ids = tokensOf(model, text, { maxTokens: 500 });
  for await (const { count } of model.forward(ids)) {
    assert.ok(count < ids.length);
    break;
  }
  assert.equal(model.stats().pages.used, 0);
  const controller = new AbortController();
  const onProgress = (): void => controller.abort(new Error('enough'));
  await assert.rejects(perplexity(model, text, { onProgress, signal: controller.signal }), /enough/);
});

test('windows score every token but the first once, after as much context as the stride leaves', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 200 }),
      fc.integer({ min: 2, max: 64 }),
      fc.integer({ min: 1, max: 64 }),
      fc.boolean(),
      (length, contextLength, wanted, begins) => {
        const ids = Array.from({ length }, (_, i) => (i === 0 && begins ? 0 : i + 1));
        const most = begins && contextLength > 2 ? contextLength - 1 : contextLength;
        const stride = Math.min(wanted, most);
        const holder = { contextLength: 64, description: { bosTokenId: 0 }, tokenizer: undefined };
        const { windows, extent } = windowsOf(holder as unknown as Model, ids, { contextLength, stride });
        const scored: number[] = [];
        let count = 0;
        for (const { ids: own, from, shift } of windows) {
          count++;
          assert.ok(own.length <= contextLength && from >= 1 && from < own.length);
          for (const [i, id] of own.entries()) {
            if (i === 0 && begins && contextLength > 2) assert.equal(id, 0);
            else assert.equal(id, ids[i + shift]);
            if (i >= from) scored.push(i + shift);
          }
        }
        assert.deepEqual([count, scored.length], [extent.windows, extent.scored]);
        const positions = ids.map((_, i) => i).slice(1);
        // Windows without overlap and without a first token of their own cannot score their first token.
        if (stride < contextLength) assert.deepEqual(scored, positions);
        else
          assert.deepEqual(
            scored,
            positions.filter((i) => i % stride !== 0),
          );
      },
    ),
  );
});

test('divergence of two rows: by hand, with tokens that are ruled out, and errors for logits that are no numbers', () => {
  const { kl, bestA, bestB, logNextA, logNextB } = divergeRows(
    Float32Array.of(Math.log(0.5), Math.log(0.25), Math.log(0.25)),
    Float32Array.of(Math.log(0.25), Math.log(0.5), Math.log(0.25)),
    1,
  );
  assert.ok(Math.abs(kl - (0.5 * Math.log(2) - 0.25 * Math.log(2))) < 1e-7);
  assert.deepEqual([bestA, bestB], [0, 1]);
  assert.ok(Math.abs(logNextA - Math.log(0.25)) < 1e-7 && Math.abs(logNextB - Math.log(0.5)) < 1e-7);
  const none = Number.NEGATIVE_INFINITY;
  assert.equal(divergeRows(Float32Array.of(1, none), Float32Array.of(1, none), 0).kl, 0);
  assert.equal(divergeRows(Float32Array.of(1, 1), Float32Array.of(1, none), 0).kl, Number.POSITIVE_INFINITY);
  assert.ok(divergeRows(Float32Array.of(1e30, 0), Float32Array.of(1e30, 0), 0).kl === 0);
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
    assert.throws(() => divergeRows(Float32Array.of(0, bad), Float32Array.of(0, 0), 0), { code: 'NumericError' });
});

/** As numpy rounds. */
function roundHalfToEven(value: number): number {
  const scaled = value * 64;
  const down = Math.floor(scaled);
  const up = scaled - down > 0.5 || (scaled - down === 0.5 && down % 2 !== 0);
  return (up ? down + 1 : down) / 64;
}

test('a SafeTensors file is written in parts, and a part outside of its tensor leaves no file', async () => {
  const path = join(folder, 'parts.safetensors');
  const shapes = ['a', 'b'].map((name) => ({ name, dtype: 'F32' as const, shape: [3, 2] }));
  const bytes = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
  await writeSafeTensorsParts(path, shapes, async (write) => {
    await write('b', 16, bytes(5, 6));
    await write('a', 0, bytes(1, 2, 3, 4));
  });
  const { tensors, close } = await openCheckpoint(nodeFolder(folder), 'parts.safetensors');
  const read = async (name: string): Promise<number[]> => {
    const into = new Uint8Array(24);
    await tensors.get(name)!.readInto(0, into);
    return [...new Float32Array(into.buffer)];
  };
  assert.deepEqual(await read('a'), [1, 2, 3, 4, 0, 0]);
  assert.deepEqual(await read('b'), [0, 0, 0, 0, 5, 6]);
  await close();
  const outside = join(folder, 'outside.safetensors');
  const fill = (write: (name: string, start: number, bytes: Uint8Array) => Promise<void>) =>
    write('a', 20, bytes(1, 2));
  await assert.rejects(writeSafeTensorsParts(outside, shapes, fill), /a has 24 bytes, not 28/);
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.includes('outside')),
    [],
  );
});
