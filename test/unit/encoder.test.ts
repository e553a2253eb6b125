import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { LanewiseError, loadEncoder, OptionError } from '../../src/node.ts';
import { encoderFolder } from '../models/encoder-support.ts';

const open = (options = {}) =>
  loadEncoder(encoderFolder('modernbert'), { inline: true, quantize: 'none', threads: 2, ...options });

test('concurrent calls are independent and give the same results as alone', async () => {
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

test('anything but a list of texts is refused', async () => {
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

/** The golden BERT with other files of sentence-transformers. */
async function changed(t: TestContext, files: Readonly<Record<string, unknown>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(encoderFolder('bert'), folder, { recursive: true });
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), JSON.stringify(content));
  }
  return folder;
}

const length = (vector: Float32Array): number => Math.hypot(...vector);

test('old and new files of one pooling give the same bits; without a Normalize module nothing is scaled', async (t) => {
  const [transformer, pooling] = ['models.Transformer', 'models.Pooling'].map((type, i) => ({
    path: i === 0 ? '' : '1_Pooling',
    type: `sentence_transformers.${type}`,
  }));
  const modules = { 'modules.json': [transformer, pooling] };
  const embed = async (config: object, options = {}): Promise<Float32Array> => {
    const folder = await changed(t, { ...modules, '1_Pooling/config.json': config });
    await using encoder = await loadEncoder(folder, { inline: true, threads: 1 });
    return (await encoder.embed(['a cat'], options))[0]!.embedding;
  };
  const cls = await embed({ pooling_mode: 'cls' });
  assert.deepEqual(await embed({ pooling_mode_cls_token: true, pooling_mode_mean_tokens: false }), cls);
  assert.ok(Math.abs(length(cls) - 1) > 0.01);
  assert.deepEqual(await embed({ pooling_mode: 'mean' }, { pooling: 'cls' }), cls);
  const mean = await embed({ pooling_mode: 'mean' });
  assert.deepEqual([...(await embed({ pooling_mode: ['mean', 'cls'] }))], [...mean, ...cls]);
  assert.ok(Math.abs(length(await embed({ pooling_mode: 'cls' }, { normalize: true })) - 1) < 1e-6);
  assert.deepEqual(await embed({ pooling_mode: 'lasttoken' }), await embed({}, { pooling: 'lasttoken' }));
});

test('texts are cut to max_seq_length with a warning, unless options say otherwise', async (t) => {
  const folder = await changed(t, { 'sentence_bert_config.json': { max_seq_length: 10 } });
  const warnings: string[] = [];
  const onWarning = (text: string): void => void warnings.push(text);
  await using encoder = await loadEncoder(folder, { inline: true, threads: 1, onWarning });
  assert.equal(encoder.contextLength, 10);
  const long = 'a '.repeat(50);
  const [cut, whole] = await encoder.embed([long, 'a '.repeat(8)]);
  assert.deepEqual([cut!.tokens, cut!.truncated, whole!.truncated], [10, true, false]);
  assert.deepEqual(cut!.embedding, whole!.embedding);
  assert.match(warnings.join('\n'), /^.*: 1 text was cut to 10 tokens as sentence_bert_config\.json asks$/);
  assert.deepEqual((await encoder.embed([long], { truncate: true }))[0], cut);
  assert.equal(warnings.length, 1);
  await assert.rejects(encoder.embed([long], { truncate: false }), /has 52 tokens, the context holds 10/);
  await using longer = await loadEncoder(folder, { inline: true, threads: 1, contextLength: 100 });
  assert.equal((await longer.embed([long]))[0]!.tokens, 52);
});

test('prompts are put before texts, by name or by default, pooled or not', async (t) => {
  const prompts = { query: 'find: ', passage: 'text: ' };
  const files = { 'config_sentence_transformers.json': { prompts, default_prompt_name: 'query' } };
  const folder = await changed(t, files);
  await using encoder = await loadEncoder(folder, { inline: true, threads: 1 });
  assert.deepEqual(Object.fromEntries(encoder.prompts), prompts);
  const embed = async (text: string, options: object): Promise<Float32Array> =>
    (await encoder.embed([text], options))[0]!.embedding;
  const plain = { prompt: '' };
  assert.deepEqual(await embed('a cat', {}), await embed('find: a cat', plain));
  assert.deepEqual(await embed('a cat', { promptName: 'passage' }), await embed('text: a cat', plain));
  assert.deepEqual(await embed('a cat', { promptName: 'document' }), await embed('a cat', plain));
  assert.deepEqual(await embed('a cat', { prompt: 'x ' }), await embed('x a cat', plain));
  await assert.rejects(
    embed('a', { promptName: 'other' }),
    /promptName must be the name of a prompt \(query, passage\)/,
  );
  await assert.rejects(embed('a', { prompt: 'x', promptName: 'query' }), /promptName must be left out/);
  await assert.rejects(embed('a', { prompt: 5 }), OptionError);
  await assert.rejects(encoder.embed([{ tokenIds: [2, 5, 3] }], { prompt: 'x' }), /texts must be strings if a prompt/);

  const without = await changed(t, { ...files, '1_Pooling/config.json': { include_prompt: false } });
  await using outside = await loadEncoder(without, { inline: true, threads: 1, contextLength: 12 });
  // Only the last special token follows the prompt of an empty text.
  const [behind] = await outside.embed([''], { prompt: 'find: ' });
  assert.deepEqual(behind!.embedding, await embed('find:', { ...plain, pooling: 'last' }));
  assert.notDeepEqual(behind!.embedding, await embed('find:', { ...plain, pooling: 'mean' }));
  await assert.rejects(
    outside.embed(['a cat'], { prompt: 'find '.repeat(40), truncate: true }),
    /no token after its prompt of \d+ tokens within 12; shorten the prompt/,
  );
});

test('JSON of an embedding is an array that gives the same bits back', async () => {
  await using encoder = await open({ threads: 1 });
  const [result] = await encoder.embed(['a cat']);
  const { embedding } = JSON.parse(JSON.stringify(result));
  assert.ok(Array.isArray(embedding));
  assert.deepEqual(Float32Array.from(embedding), result!.embedding);
  assert.deepEqual(JSON.parse(JSON.stringify(result!.embedding)), embedding);
  assert.deepEqual(Object.keys(result!.embedding).length, embedding.length);
});

test('the event loop gets its turns between forwards, and an abort from there is heard', async () => {
  await using encoder = await open({ threads: 1 });
  let turns = 0;
  const count = (): void => {
    turns++;
    immediate = setImmediate(count);
  };
  let immediate = setImmediate(count);
  await encoder.embed(new Array(640).fill('a cat'));
  clearImmediate(immediate);
  assert.ok(turns >= 9, `${turns} turns in 10 forwards`);
  const stop = new AbortController();
  setImmediate(() => setImmediate(() => stop.abort(new Error('enough'))));
  await assert.rejects(encoder.embed(new Array(6400).fill('a cat'), { signal: stop.signal }), /enough/);
  assert.equal((await encoder.embed(['a cat'])).length, 1);
});

test('an abort takes effect between forwards; a disposed encoder throws', async () => {
  const encoder = await open();
  await assert.rejects(encoder.embed(['a'], { signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  await encoder.dispose();
  await encoder.dispose();
  await assert.rejects(encoder.embed(['a']), /has been disposed/);
});

test('texts of several calls share forwards in turns of their keys, and a call that is aborted touches no other', async () => {
  await using encoder = await open();
  const texts = Array.from({ length: 40 }, (_, i) => `${'a '.repeat(1 + (i % 5))}cat`);
  const alone = await encoder.embed(texts);
  const before = encoder.stats();
  const stop = new AbortController();
  const ends: string[] = [];
  const long = encoder.embed(Array.from({ length: 8 }, () => texts).flat(), {
    fairnessKey: 'long',
    signal: stop.signal,
  });
  const short = ['x', 'y'].map(async (fairnessKey) => {
    const result = await encoder.embed(texts, { fairnessKey });
    ends.push(fairnessKey);
    return result;
  });
  void long.then(
    () => ends.push('long'),
    () => ends.push('stopped'),
  );
  for (const result of await Promise.all(short)) assert.deepEqual(result, alone);
  assert.deepEqual(ends.toSorted(), ['x', 'y'], 'nobody waits for the long one');
  stop.abort(new Error('enough'));
  await assert.rejects(long, /enough/);
  const after = encoder.stats();
  assert.deepEqual([after.waiting, after.running], [0, 0]);
  assert.equal(after.ended - before.ended, 3);
});
