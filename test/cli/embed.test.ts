import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { readGoldenTexts } from '../models/encoder-support.ts';
import { golden, lanewise } from './run.ts';

const names = ['bert', 'nomic-bert', 'modernbert'];
const encoder = (name: string): string => golden(`encoders/${name}`);

/** Texts (no pairs) with the embeddings of the reference. */
async function plainTexts(name: string) {
  const texts = await readGoldenTexts(name);
  return texts.flatMap(({ text, ids, tensors }) => (typeof text === 'string' ? [{ text, ids, tensors }] : []));
}

const near = (got: readonly number[], expected: Float32Array): void => {
  assert.equal(got.length, expected.length);
  for (const [i, value] of got.entries()) assert.ok(Math.abs(value - expected[i]!) < 2e-5, `value ${i}`);
};

test('embeddings are those of transformers, in the order of the lines', async () => {
  for (const name of names) {
    const texts = await plainTexts(name);
    const input = texts.map(({ text }) => `${text}\n`).join('');
    const mean = await lanewise(['embed', encoder(name), '--quantize', 'none'], { input });
    assert.equal(mean.code, 0, mean.err);
    const rows = mean.out.trimEnd().split('\n');
    assert.equal(rows.length, texts.length);
    for (const [i, row] of rows.entries()) near(JSON.parse(row), texts[i]!.tensors.get('embedding')!);
    const args = ['embed', encoder(name), '--quantize', 'none', '--pooling', 'cls', '--json'];
    const cls = await lanewise([...args, ...texts.flatMap(({ text }) => ['--text', text])]);
    for (const [i, row] of cls.out.trimEnd().split('\n').entries()) {
      const { text, tokens, embedding } = JSON.parse(row);
      assert.deepEqual({ text, tokens }, { text: texts[i]!.text, tokens: texts[i]!.ids.length });
      near(embedding, texts[i]!.tensors.get('cls')!);
    }
  }
});

test('a text has the same digits alone, in any company, with any number of threads', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  try {
    const file = join(folder, 'texts.txt');
    const lines = Array.from({ length: 300 }, (_, i) => `${'the cat sat '.repeat(i % 12)}${i % 7}`);
    await writeFile(file, lines.join('\r\n'));
    const all = (await lanewise(['embed', encoder('modernbert'), '--file', file, '--threads', '2'])).out.split('\n');
    assert.equal(all.length, lines.length + 1);
    for (const i of [0, 11, 299]) {
      const alone = await lanewise(['embed', encoder('modernbert'), '--text', lines[i]!, '--threads', '1']);
      assert.equal(alone.out, `${all[i]}\n`);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('--no-normalize leaves lengths alone; an empty line is a text', async () => {
  const args = ['embed', encoder('bert'), '--no-normalize', '--pooling', 'last'];
  const { out } = await lanewise(args, { input: 'a cat\n\nlast' });
  const rows = out.trimEnd().split('\n');
  assert.equal(rows.length, 3);
  for (const row of rows) {
    const length = Math.hypot(...(JSON.parse(row) as number[]));
    assert.ok(Math.abs(length - 1) > 0.01, `length ${length}`);
  }
});

test('texts above the context are refused with both counts, or cut in front of the last special token', async () => {
  const long = 'a '.repeat(200);
  const refused = await lanewise(['embed', encoder('bert'), '--text', long]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /"a a .*\.\.\." has 202 tokens, the context holds 128; shorten it, or give --truncate/);
  const cut = await lanewise(['embed', encoder('bert'), '--truncate', '--json', '--text', long]);
  const whole = await lanewise(['embed', encoder('bert'), '--json', '--text', 'a '.repeat(126)]);
  assert.equal(JSON.parse(cut.out).tokens, 128);
  assert.deepEqual(JSON.parse(cut.out).embedding, JSON.parse(whole.out).embedding);
});

test("the folder's pooling is taken; what we do not have is refused, unless one is named", async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  try {
    await cp(encoder('bert'), folder, { recursive: true });
    const embed = (...args: string[]) => lanewise(['embed', folder, '--text', 'a cat', ...args]);
    await writeFile(join(folder, '1_Pooling/config.json'), '{"pooling_mode_cls_token": true}');
    const [own, cls, mean] = [await embed(), await embed('--pooling', 'cls'), await embed('--pooling', 'mean')];
    assert.equal(own.out, cls.out);
    assert.notEqual(own.out, mean.out);
    await writeFile(join(folder, '1_Pooling/config.json'), '{"pooling_mode": "middle"}');
    assert.match(
      (await embed()).err,
      /1_Pooling\/config\.json: expected pooling_mode to be made of mean, .*found "middle"; name a pooling to use/,
    );
    assert.equal((await embed('--pooling', 'cls')).out, cls.out);
    await writeFile(join(folder, 'modules.json'), '[{"type": "sentence_transformers.models.CNN", "path": "1_CNN"}]');
    assert.match((await embed()).err, /modules\.json: expected modules .*, found sentence_transformers\.models\.CNN;/);
    await rm(join(folder, 'modules.json'));
    assert.equal((await embed()).out, mean.out);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('decoders do not embed, encoders do not generate; other mistakes are one line', async () => {
  const errors: [string[], RegExp][] = [
    [
      ['embed', golden('models/llama-bias'), '--text', 'a'],
      /expected an encoder, found llama, .*one of bert, nomic_bert/,
    ],
    [['generate', encoder('bert'), '--prompt', 'a'], /expected a model that generates text, found the encoder bert/],
    [
      ['embed', encoder('bert'), '--text', 'a', '--pooling', 'middle'],
      /--pooling must be one of mean, cls, last, max, .*, got "middle"/,
    ],
    [['embed', encoder('bert'), '--text', 'a', '--file', 'b'], /give --text or --file, not both/],
    [['embed', encoder('bert'), '--file', 'no/such/file'], /--file no\/such\/file cannot be read: ENOENT/],
    [['embed', encoder('bert'), '--text', 'a', '--context-length', '129'], /at most 128/],
    [
      ['embed', encoder('bert'), '--text', 'a', '--prompt-name', 'passage'],
      /--prompt-name must be the name of a prompt \(none: the model has no prompts\), got "passage"/,
    ],
    [['embed'], /missing required argument 'model'/],
  ];
  for (const [args, message] of errors) {
    const { code, out, err } = await lanewise(args);
    assert.deepEqual([code, out], [1, ''], args.join(' '));
    assert.match(err, message);
    assert.equal(err.trimEnd().split('\n').length, 1, err);
  }
});

test('Ctrl-C ends it with 130, also while it waits for texts; what was written stays', {
  timeout: 120_000,
}, async (t) => {
  // A line is read when the next one begins.
  const lines = 'a cat\n'.repeat(257);
  const main = fileURLToPath(new URL('../../src/cli/lanewise.ts', import.meta.url));
  const child = spawn(process.execPath, [main, 'embed', encoder('bert')], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  let out = '';
  child.stdout.on('data', (data) => {
    out += data;
    if (out.split('\n').length > 256) child.kill('SIGINT');
  });
  child.stdin.on('error', () => {});
  child.stdin.write(lines);
  const [code] = await once(child, 'close');
  assert.deepEqual([code, out.trimEnd().split('\n').length], [130, 256]);
});

test('plan shows an encoder', async () => {
  const { out, code } = await lanewise(['plan', encoder('modernbert'), '--steps']);
  assert.equal(code, 0);
  assert.match(out, /bidirectional window 9/);
});
