import assert from 'node:assert/strict';
import test from 'node:test';
import { LanewiseError, loadEncoder, OptionError } from '../../src/node.ts';
import { encoderFolder } from '../models/encoder-support.ts';

const open = (options = {}) => loadEncoder(encoderFolder('modernbert'), { quantize: 'none', threads: 2, ...options });

test('calls side by side do not mix, and give what they give alone', async () => {
  await using encoder = await open();
  const texts = Array.from({ length: 150 }, (_, i) => `text ${'and more '.repeat(i % 9)}${i}`);
  const whole = await encoder.embed(texts);
  const parts = await Promise.all([0, 50, 100].map((from) => encoder.embed(texts.slice(from, from + 50))));
  assert.deepEqual(parts.flat(), whole);
  assert.deepEqual(await encoder.embed([]), []);
});

test('token ids are taken instead of text', async () => {
  await using encoder = await open();
  const [text] = await encoder.embed(['a cat']);
  const ids = encoder.tokenizer!.encode('a cat');
  assert.deepEqual(await encoder.embed([{ tokenIds: ids }]), [text]);
  await assert.rejects(
    encoder.embed([{ tokenIds: [600] }]),
    /tokenIds must be made of integers from 0 to 599, got 600/,
  );
  await assert.rejects(encoder.embed([{ tokenIds: [] }]), /texts must be of at least one token each/);
});

test('what is no list of texts is refused', async () => {
  await using encoder = await open();
  for (const bad of [
    'text',
    null,
    undefined,
    5,
    {},
    [5],
    [null],
    ['a', undefined],
    [{}],
    [{ tokenIds: 'ab' }],
    new Array(1),
  ])
    await assert.rejects(encoder.embed(bad as never), {
      name: 'OptionError',
      message: /^texts must be an array of strings or \{ tokenIds \}, got /,
    });
});

test('a text takes all of the context, which may be shorter than the model allows', async () => {
  await using encoder = await open({ contextLength: 10 });
  const tokens = async (words: number, truncate: boolean): Promise<number> =>
    (await encoder.embed(['a '.repeat(words)], { truncate }))[0]!.tokens;
  assert.equal(await tokens(8, false), 10);
  assert.equal(await tokens(50, true), 10);
  const exceeded = (error: unknown): boolean =>
    error instanceof LanewiseError && error.code === 'ContextLengthExceeded';
  await assert.rejects(tokens(9, false), exceeded);
  await assert.rejects(open({ contextLength: 129 }), OptionError);
});

test('both backends agree', async () => {
  await using encoder = await open();
  await using reference = await open({ backend: 'reference' });
  for (const pooling of ['mean', 'cls', 'last'] as const) {
    const [[got], [expected]] = [
      await encoder.embed(['a cat'], { pooling }),
      await reference.embed(['a cat'], { pooling }),
    ];
    for (const [i, value] of got!.embedding.entries())
      assert.ok(Math.abs(value - expected!.embedding[i]!) < 1e-5, `${pooling} ${i}`);
    assert.ok(Math.abs(Math.hypot(...got!.embedding) - 1) < 1e-6);
  }
});

test('an abort ends it between forwards; a disposed encoder says so', async () => {
  const encoder = await open();
  await assert.rejects(encoder.embed(['a'], { signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  await encoder.dispose();
  await encoder.dispose();
  await assert.rejects(encoder.embed(['a']), /has been disposed/);
});
