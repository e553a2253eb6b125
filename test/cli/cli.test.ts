import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';

const main = fileURLToPath(new URL('../../src/cli/lanewise.ts', import.meta.url));
const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function lanewise(
  args: readonly string[],
  options: { input?: string; env?: NodeJS.ProcessEnv; interruptAfter?: RegExp } = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], { env: { ...process.env, ...options.env } });
    let [out, err] = ['', ''];
    child.stdout.on('data', (data) => {
      out += data;
      if (!child.killed && options.interruptAfter?.test(out)) child.kill('SIGINT');
    });
    child.stderr.on('data', (data) => {
      err += data;
      if (!child.killed && options.interruptAfter?.test(err)) child.kill('SIGINT');
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, out, err }));
    child.stdin.end(options.input ?? '');
  });
}

const story = ', there was a little boy named Jack';
const ten = ['generate', '--temperature', '0', '--max-tokens', '8'];

test('generate writes only the text to stdout, from an option or standard input', async () => {
  const given = await lanewise([...ten, '--prompt', 'Once upon a time']);
  assert.deepEqual(given, { code: 0, out: `${story}\n`, err: '' });
  assert.equal((await lanewise(ten, { input: 'Once upon a time\n' })).out, `${story}\n`);
  assert.equal((await lanewise([...ten, '--prompt', 'Once upon a time', '--no-stream'])).out, `${story}\n`);
});

test('--json tells everything, --timings shows the step table on stderr', async () => {
  const { out, err } = await lanewise([...ten, '--prompt', 'Once upon a time', '--json', '--timings']);
  const result = JSON.parse(out);
  assert.equal(result.text, story);
  assert.equal(result.finish_reason, 'length');
  assert.deepEqual(result.usage, {
    prompt_tokens: result.prompt_token_ids.length,
    completion_tokens: 8,
    cached_tokens: 0,
  });
  assert.equal(result.token_ids.length, 8);
  assert.deepEqual(result.plan, { quantize: 'q8_0:min-dim=1024', linear_layers: 37, quantized: 13 });
  assert.equal(result.model.type, 'gpt2');
  assert.ok(result.timings.steps.every((step: { phases: { total: number } }) => step.phases.total > 0));
  assert.match(err, /\| 1 \(prefill\) \|/);
  assert.match(err, /13 of 37 linear layers stored as Q8_0/);
});

test('--json says which token or stop string ended the text', async () => {
  const result = async (...args: string[]): Promise<{ finish_reason: string; stopped_by?: number | string }> =>
    JSON.parse((await lanewise([...ten, '--prompt', 'Once upon a time', '--json', ...args])).out);
  const length = await result();
  assert.deepEqual([length.finish_reason, length.stopped_by], ['length', undefined]);
  const text = await result('--stop', 'there', '--stop', 'never');
  assert.deepEqual([text.finish_reason, text.stopped_by], ['stop', 'there']);
  const token = await result('--stop-token-id', '16');
  assert.deepEqual([token.finish_reason, token.stopped_by], ['stop', 16]);
});

test('a batch file keeps its order and gives what each prompt gives alone', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  try {
    await writeFile(join(folder, 'a.txt'), 'Once upon a time\nThe old wizard\n');
    const requests = '{"prompt": "Once upon a time"}\n{"prompt": "The old wizard"}\n';
    await writeFile(join(folder, 'a.jsonl'), requests);
    await writeFile(join(folder, 'requests'), requests);
    await writeFile(join(folder, 'empty.txt'), '\n');
    const wizard = (await lanewise([...ten, '--prompt', 'The old wizard'])).out.trimEnd();
    for (const file of ['a.txt', 'a.jsonl', 'requests']) {
      assert.equal((await lanewise([...ten, '--batch-file', join(folder, file)])).out, `[1] ${story}\n[2] ${wizard}\n`);
    }
    assert.match((await lanewise([...ten, '--batch-file', join(folder, 'empty.txt')])).err, /^error: .*empty/);
    const stream = await lanewise([...ten, '--batch-file', join(folder, 'a.txt'), '--stream']);
    assert.match(stream.err, /^error: --stream is not supported with --batch-file\n$/);
    await writeFile(join(folder, 'prompts.txt'), `A short one\n\n${'word '.repeat(2000)}\n`);
    const long = await lanewise([...ten, '--batch-file', join(folder, 'prompts.txt')]);
    assert.match(
      long.err,
      /^error: --batch-file \S+prompts\.txt, line 3: the prompt has \d+ tokens, the context holds/,
    );
    await writeFile(join(folder, 'config.json'), '{"model_type": "parrot"}');
    await writeFile(join(folder, 'model.safetensors'), Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d]));
    const parrot = await lanewise([...ten, folder, '--prompt', 'x']);
    assert.match(parrot.err, /^error: .*"parrot" is not known; known are gpt2, llama, mistral, .*\n$/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('mistakes are one line on stderr and exit code 1', async () => {
  const mistakes: [string[], RegExp][] = [
    [['generate', '--prompt', 'x', '--top-p', '2'], /--top-p must be in \(0, 1\], got 2/],
    [['generate', '--prompt', 'x', '--temperature', 'warm'], /--temperature must be a number, got "warm"/],
    [['generate', '--prompt', 'x', '--max-tokens', '-2'], /--max-tokens must be an integer >= 0/],
    [
      ['generate', '--prompt', 'x', '--token-ids', '1'],
      /give one of --prompt, --token-ids, --messages and --batch-file/,
    ],
    [['generate', '--prompt', 'x', '--max-tokens', 'five'], /--max-tokens must be a number/],
    [['generate', '--token-ids', '1,x'], /--token-ids must be integers/],
    [['generate', '--prompt', 'x', '--quantize', 'q3'], /--quantize must be none, q8_0/],
    [['plan', '--quantize', 'q8_0,foo=q4_0'], /^error: --quantize must be none, q8_0.*, got "q8_0,foo=q4_0"/],
    [['inspect', '--quantize', 'q8_0,foo=q4_0'], /^error: --quantize must be none, q8_0.*, got "q8_0,foo=q4_0"/],
    [['generate', '--prompt', 'x', '--kv-cache', 'f8'], /--kv-cache must be f32, f16 or q8_0, got "f8"/],
    [['generate', '--prompt', 'x', '--cache-tokens', '10.5'], /--cache-tokens must be an integer from 1 to/],
    [['generate', '--prompt', 'x', '--cache-memory', '2 apples'], /--cache-memory must be a number of bytes such as/],
    [['generate', '--prompt', 'x', '--cache-memory', '1k'], /--cache-memory must be at least \d+ bytes/],
    [['generate', '--prompt', 'x', '--cache-memory', '900 TiB'], /--cache-memory must be at most \d+, the memory of/],
    [['inspect', '--kv-cache', 'f8'], /--kv-cache must be f32, f16 or q8_0, got "f8"/],
    [['generate', 'nowhere', '--prompt', 'x'], /nowhere: no such file or folder/],
    [['generate', 'a', '--safetensors', 'b', '--prompt', 'x'], /give MODEL or --safetensors, not both/],
    [['generate', '--safetensors', 'nobody/nothing', '--prompt', 'x'], /expected in the cache/],
    [['generate', '--frobnicate'], /unknown option/],
    [['generate'], /no prompt/],
    [['frobnicate'], /unknown command/],
  ];
  for (const [args, message] of mistakes) {
    const { code, out, err } = await lanewise(args, { env: { HF_HUB_CACHE: '/nonexistent', HF_HUB_OFFLINE: '1' } });
    assert.deepEqual([code, out], [1, ''], args.join(' '));
    assert.match(err, /^error: [^\n]*\n$/, args.join(' '));
    assert.match(err, message);
  }
});

test('without a subcommand there is help', async () => {
  for (const args of [[], ['template'], ['tokenize']]) {
    const { code, out, err } = await lanewise(args);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /^Usage: lanewise/);
  }
});

test('an option that may be given again does not take the model for a value', async () => {
  const { code, err } = await lanewise(['generate', '--stop', 'END', '--stop', 'x', './nowhere', '--prompt', 'Once']);
  assert.equal(code, 1);
  assert.match(err, /nowhere: expected a model folder/);
});

test('a full disk behind stdout and a closed stderr', async () => {
  const shell = (redirection: string) =>
    spawnSync(
      'sh',
      ['-c', `"$0" "$1" generate --prompt Once --max-tokens 5 --temperature 0 ${redirection}`, process.execPath, main],
      { encoding: 'utf8' },
    );
  const full = shell('> /dev/full');
  assert.equal(full.status, 1);
  assert.match(full.stderr, /^error: standard output: [^\n]*ENOSPC[^\n]*\n$/);
  const silent = shell('2>&-');
  assert.deepEqual([silent.status, silent.stdout], [0, shell('').stdout]);
});

/** Slow enough for an interruption. */
const endless = ['generate', '--temperature', '0', '--max-tokens', '480', '--ignore-eos', '--backend', 'reference'];

test('Ctrl-C keeps what was produced and exits with 130', async () => {
  const { code, out } = await lanewise([...endless, '--prompt', 'Once upon a time'], { interruptAfter: /little/ });
  assert.equal(code, 130);
  assert.ok(out.startsWith(', there was a little'));
});

test('Ctrl-C with --json gives the result so far as JSON, and exits with 130', async () => {
  const { code, out, err } = await lanewise([...endless, '--seed', '7', '--prompt', 'Once upon a time', '--json'], {
    env: { LANEWISE_LOG: 'lanewise=debug' },
    interruptAfter: /generator\.prefill/,
  });
  assert.equal(code, 130, err);
  const result = JSON.parse(out);
  assert.equal(result.finish_reason, 'aborted');
  const { prompt_tokens, completion_tokens } = result.usage;
  assert.deepEqual([prompt_tokens, completion_tokens], [result.prompt_token_ids.length, result.token_ids.length]);
  assert.ok(prompt_tokens > 0 && completion_tokens < 480);
  const whole = ', there was a little boy named Jack';
  assert.ok(result.text.startsWith(whole) || whole.startsWith(result.text), result.text);
  assert.equal(result.model.seed, 7);
  assert.ok(result.timings.prefill_ms >= 0);
});

test('--no-revectorize: the same text, and the load line says the width', async () => {
  const args = ['generate', '--prompt', 'Once upon a time', '--temperature', '0', '--max-tokens', '5', '--timings'];
  const [asked, not] = [await lanewise(args), await lanewise([...args, '--no-revectorize'])];
  assert.equal(asked.out, not.out);
  assert.match(asked.err, /, (128|256)-bit kernels\n/);
  assert.match(not.err, /, 128-bit kernels\n/);
});

test('--draft and --draft-quantize: the same text, with draft tokens counted; mistakes name the flag', async () => {
  const args = ['generate', '--prompt', 'Once', '--temperature', '0', '--max-tokens', '12', '--json'];
  const [plain, drafted, wrong] = await Promise.all([
    lanewise(args),
    lanewise([...args, '--draft-quantize', 'q4_0']),
    lanewise([...args, '--draft', golden('gemma3')]),
  ]);
  const [one, other] = [JSON.parse(plain.out), JSON.parse(drafted.out)];
  assert.deepEqual([other.token_ids, other.text], [one.token_ids, one.text]);
  assert.equal(one.usage.draft_tokens, undefined);
  assert.ok(other.usage.draft_tokens >= other.usage.accepted_draft_tokens);
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /^error: --draft must be a model with the tokens of .*, got "<pad>"\n$/m);
});

test('plan reads headers and tells what is stored how', async () => {
  const plan = JSON.parse((await lanewise(['plan', golden('gpt2-wide'), '--json'])).out);
  assert.equal(plan.linear_layers, 13);
  assert.equal(plan.quantized, 5);
  const up = plan.weights.find(({ name }: { name: string }) => name === 'layers.0.ffn.up');
  assert.deepEqual(up, {
    name: 'layers.0.ffn.up',
    role: 'ffn',
    in: 256,
    out: 1024,
    stored: 'q8_0',
    reason: 'max dim 1024 >= 1024',
    bytes: 1024 * 8 * 34,
  });
  assert.match(
    (await lanewise(['plan', golden('gpt2-wide'), '--steps'])).out,
    /layer\[1\]\.attention +matmul +f16 \[Tx256\]x\[256x256\] layers\.1\.attention\.q/,
  );
  assert.match((await lanewise(['plan', golden('gpt2-wide')])).out, /\| Total quantized +\| 5 of 13 \|/);
});

test('forward writes logits and hidden states', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  try {
    const output = join(folder, 'out.safetensors');
    assert.equal(
      (await lanewise(['forward', golden('gemma3'), '--token-ids', '2,5,9', '--output', output, '--hidden'])).code,
      0,
    );
    const { tensors, close } = await openCheckpoint(nodeFolder(folder), 'out.safetensors');
    assert.deepEqual(Object.fromEntries([...tensors].map(([name, { shape, dtype }]) => [name, [dtype, ...shape]])), {
      logits: ['F32', 3, 500],
      ...Object.fromEntries([0, 1, 2, 3, 4].map((i) => [`hidden.${i}`, ['F32', 3, 64]])),
    });
    await close();
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('files that cannot be written are found before the work begins', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
  try {
    const missing = join(folder, 'missing', 'out.gguf');
    const inFile = join(folder, 'file', 'out.gguf');
    await writeFile(join(folder, 'file'), '');
    const named = join(folder, 'folder.gguf');
    await mkdir(named);
    // The model is missing too: the error shows which of them is checked first.
    const nowhere = join(folder, 'nowhere');
    for (const [path, reason] of [
      [missing, 'ENOENT'],
      [inFile, 'ENOTDIR'],
      [named, 'it is a folder'],
    ] as const) {
      for (const [args, name] of [
        [['forward', nowhere, '--token-ids', '1', '--output', path], `--output ${path}`],
        [['bench', nowhere, '--save', path], `--save ${path}`],
        [['quantize', nowhere, path, '--to', 'q8_0', '--force'], path],
      ] as const) {
        const { code, out, err } = await lanewise(args);
        assert.deepEqual([code, out, err], [1, '', `error: ${name} cannot be written: ${reason}\n`]);
      }
    }
    assert.deepEqual((await readdir(folder)).sort(), ['file', 'folder.gguf']);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('the log follows its directives', async () => {
  const { err } = await lanewise([...ten, '--prompt', 'Once'], { env: { LANEWISE_LOG: 'lanewise=debug' } });
  assert.match(err, /\[perf\] generator\.prefill tokens=\d+ [\d.]+ms/);
  assert.match(err, /\[perf\] layer\[5\]\.forward attention=[\d.]+ms ffn=/);
  assert.match(err, /\[perf\] model\.forward embedding=.* total=/);
  assert.doesNotMatch(err, /kernel\./);
  assert.match(
    (await lanewise([...ten, '--prompt', 'Once'], { env: { LANEWISE_LOG: 'lanewise.kernel=trace' } })).err,
    /kernel\.matmul q8_0 .*GB\/s/,
  );
  assert.match(
    (await lanewise([...ten, '--prompt', 'Once'], { env: { LANEWISE_LOG: 'loud' } })).err,
    /^error: LANEWISE_LOG/,
  );
});

test('help has examples', async () => {
  for (const command of ['generate', 'forward', 'plan', 'bench', 'demo']) {
    const { code, out } = await lanewise([command, '--help']);
    assert.equal(code, 0);
    assert.match(out, /Examples:\n {2}\$ lanewise/);
  }
  assert.match((await lanewise(['--version'])).out, /^\d+\.\d+\.\d+\n$/);
});
