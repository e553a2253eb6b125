import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../src/cli/lanewise.ts', import.meta.url));
const golden = (name: string): string => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function tokenize(args: readonly string[], input = ''): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, 'tokenize', ...args]);
    let [out, err] = ['', ''];
    child.stdout.on('data', (data) => {
      out += data;
    });
    child.stderr.on('data', (data) => {
      err += data;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out, err }));
    child.stdin.end(input);
  });
}

const llama = golden('tokenizers/llama2');

test('encode takes an option, a file as it is, or standard input without its last line feed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  try {
    await writeFile(join(folder, 'a.txt'), 'it is\n');
    const ids = { code: 0, out: '1,286,478,300\n', err: '' };
    assert.deepEqual(await tokenize(['encode', llama, '--text', 'it is']), ids);
    assert.deepEqual(await tokenize(['encode', join(llama, 'tokenizer.json')], 'it is\n'), ids);
    assert.equal((await tokenize(['encode', llama, '--no-special', '--text', 'it is'])).out, '286,478,300\n');
    const file = await tokenize(['encode', llama, '--file', join(folder, 'a.txt'), '--json']);
    assert.deepEqual(JSON.parse(file.out), {
      ids: [1, 286, 478, 300, 390],
      tokens: ['<s>', '▁it', '▁', 'is', '\n'],
    });
    const gguf = await tokenize(['encode', golden('gguf/llama-f32.gguf'), '--text', 'it is']);
    assert.deepEqual(gguf, ids);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('control tokens are text unless they are asked for', async () => {
  const plain = await tokenize(['encode', llama, '--no-special', '--json', '--text', '</s>']);
  assert.deepEqual(JSON.parse(plain.out).tokens, ['▁', '<0x3C>', '/', 's', '>']);
  assert.equal((await tokenize(['encode', llama, '--no-special', '--parse-special', '--text', '</s>'])).out, '2\n');
});

test('decode takes ids as they are written', async () => {
  for (const ids of ['1,286,478,300', '[1, 286, 478, 300]', '1 286 478 300']) {
    assert.equal((await tokenize(['decode', llama, '--ids', ids])).out, '<s> it is\n');
  }
  assert.equal((await tokenize(['decode', llama, '--no-special'], '1,286,478,300\n')).out, 'it is\n');
});

test('--jsonl answers every line, with the ids of the reference', async () => {
  const { cases } = JSON.parse(await readFile(join(llama, 'vectors.json'), 'utf8')) as {
    cases: { text: string; ids: number[]; decoded: string }[];
  };
  const lines = (values: readonly unknown[]): string => values.map((value) => `${JSON.stringify(value)}\n`).join('');
  const encoded = await tokenize(['encode', llama, '--jsonl', '--parse-special'], lines(cases.map(({ text }) => text)));
  const answers = encoded.out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    answers.map(({ ids }) => ids),
    cases.map(({ ids }) => ids),
  );
  assert.ok(answers.every(({ ids, tokens }) => ids.length === tokens.length));
  const decoded = await tokenize(['decode', llama, '--jsonl'], lines(cases.map(({ ids }) => ids)));
  assert.equal(decoded.out, lines(cases.map((one) => ({ text: one.decoded }))));
});

test('info says what a tokenizer is', async () => {
  const { out } = await tokenize(['info', golden('tokenizers/bert')]);
  assert.match(out, /^WordPiece, ids below 600, 5 special tokens\n/);
  assert.match(out, /\| +2 \| "\[CLS\]" +\|/);
  const json = JSON.parse((await tokenize(['info', golden('gguf/gpt2-f32.gguf'), '--json'])).out);
  assert.deepEqual(json, { kind: 'gpt2', vocab_size: 400, special_tokens: [{ id: 399, token: '<|endoftext|>' }] });
});

test('mistakes are one line on stderr, with exit code 1', async () => {
  const mistakes = [
    [['encode', llama, '--text', 'a', '--file', 'b'], '', /--text or --file/],
    [['encode', llama, '--jsonl'], '"a"\nb\n', /^error: line 2: /],
    [['encode', llama, '--jsonl'], '[1]\n', /^error: line 1: expected a text/],
    [['encode', llama, '--jsonl'], '"\\ud800"\n', /line 1: .*well-formed/],
    [['decode', llama, '--ids', '1,x'], '', /list of ids such as \[1,2,3\], found \[1,"x"\]/],
    [['decode', llama, '--ids', '1,480'], '', /no token has the id 480/],
    [['decode', llama, '--jsonl'], '[1.5]\n', /line 1: .*list of ids/],
    [['info', golden('quant')], '', /expected a tokenizer.json, .model or .gguf file/],
    [['info', join(llama, 'nothing')], '', /nothing there/],
    [['encode', golden('tokenizers/llama2/vectors.json'), '--text', 'a'], '', /model/],
  ] as const;
  const outcomes = await Promise.all(mistakes.map(([args, input]) => tokenize(args, input)));
  for (const [i, { code, err }] of outcomes.entries()) {
    const [args, , message] = mistakes[i]!;
    assert.match(err, message, args.join(' '));
    assert.match(err, /^error: [^\n]*\n$/);
    assert.equal(code, 1);
  }
});
