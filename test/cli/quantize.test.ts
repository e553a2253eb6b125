/** `lanewise quantize` at the command line: streams, exit codes, and a kill at any moment. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const main = path('../../src/cli/lanewise.ts');
const gpt2 = path('../golden/models/gpt2-wide');
const llama = path('../golden/gguf/llama-256-f16.gguf');
const scratch = await mkdtemp(join(tmpdir(), 'lanewise-cli-quantize-'));
after(() => rm(scratch, { recursive: true }));

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const run = (...args: string[]): Promise<Result> =>
  new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { maxBuffer: 2 ** 26 }, (error, stdout, stderr) =>
      resolve({ code: error ? (error.code as number | null) : 0, stdout, stderr }),
    );
  });

test('a folder becomes a GGUF file that generates', async () => {
  const out = join(scratch, 'gpt2.gguf');
  const written = await run('quantize', gpt2, out, '--to', 'q8_0');
  assert.deepEqual([written.code, written.stdout], [0, ''], written.stderr);
  assert.match(written.stderr, /^wrote .*gpt2\.gguf: [\d.]+ MB, 9 tensors Q8_0, 19 F32\n$/);
  const result = await run('generate', out, '--token-ids', '1,2,3', '--max-tokens', '4', '--json', '--ignore-eos');
  assert.equal(result.code, 0, result.stderr);
  assert.equal(JSON.parse(result.stdout).token_ids.length, 4);
  const plan = await run('plan', out, '--json');
  assert.equal(JSON.parse(plan.stdout).quantized, 13);
});

test('the embedded model tells the same story out of a GGUF file', async () => {
  const out = join(scratch, 'stories.gguf');
  const { code, stderr } = await run('quantize', path('../../models/lanewise-stories'), out, '--to', 'f16');
  assert.equal(code, 0, stderr);
  const ask = ['--prompt', 'Once upon a time', '--temperature', '0', '--max-tokens', '12'];
  const [told, expected] = [await run('generate', out, ...ask), await run('generate', '--quantize', 'none', ...ask)];
  assert.equal(told.code, 0, told.stderr);
  assert.equal(told.stdout, expected.stdout);
});

test('--json and --metrics say what each tensor lost', async () => {
  const out = join(scratch, 'metrics.gguf');
  const { code, stdout } = await run('quantize', llama, out, '--to', 'q4_0', '--metrics', '--json');
  assert.equal(code, 0);
  const report = JSON.parse(stdout);
  assert.equal(report.output, out);
  assert.equal(report.bytes, (await readFile(out)).length);
  const norm = report.tensors.find(({ name }: { name: string }) => name === 'output_norm.weight');
  assert.deepEqual([norm.from, norm.to, norm.mse, norm.snr_db], ['F32', 'F32', 0, null]);
  const matrix = report.tensors.find(({ name }: { name: string }) => name === 'blk.0.attn_q.weight');
  assert.deepEqual([matrix.from, matrix.to, matrix.shape], ['F16', 'Q4_0', [256, 256]]);
  assert.ok(matrix.mse > 0 && matrix.max_error > 0 && matrix.snr_db > 15 && matrix.snr_db < 30);
  const table = await run('quantize', llama, out, '--to', 'q8_0', '--metrics', '--force');
  assert.match(table.stdout, /^\| Tensor +\| +Shape \| From \| To +\| +MSE \| Max error \| SNR dB \|\n/);
});

test('mistakes are one line and exit 1; nothing is replaced unasked', async () => {
  const taken = join(scratch, 'taken.gguf');
  await writeFile(taken, 'mine');
  for (const [args, message] of [
    [
      [gpt2, taken, '--to', 'q8_0'],
      /^error: .*taken\.gguf already exists: give another name, or --force to replace it\n$/,
    ],
    [[gpt2, join(scratch, 'a.gguf'), '--to', 'q9'], /^error: --to must be one of q8_0, /],
    [[gpt2, join(scratch, 'a.gguf')], /^error: required option '--to <type>' not specified\n$/],
    [[gpt2, join(scratch, 'a.bin'), '--to', 'f16'], /^error: OUT must be a name that ends in \.gguf or \.safetensors/],
    [[gpt2, join(scratch, 'a.safetensors'), '--to', 'q8_0'], /^error: --to must be f32, f16 or bf16/],
    [[join(scratch, 'none'), join(scratch, 'a.gguf'), '--to', 'f16'], /^error: .*found nothing there\n$/],
  ] as const) {
    const { code, stdout, stderr } = await run('quantize', ...args);
    assert.deepEqual([code, stdout], [1, ''], stderr);
    assert.match(stderr, message);
  }
  assert.equal(await readFile(taken, 'utf8'), 'mine');
  assert.equal((await run('quantize', gpt2, taken, '--to', 'f16', '--force')).code, 0);
});

test('a kill at any moment leaves no half file under the name', async () => {
  const out = join(scratch, 'killed.gguf');
  let whole = 0;
  for (let ms = 100; ms <= 1000; ms += 150) {
    const child = spawn(process.execPath, [main, 'quantize', gpt2, out, '--to', 'q6_k', '--force'], {
      stdio: 'ignore',
    });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    setTimeout(() => child.kill('SIGKILL'), ms);
    await ended;
    if (!(await readdir(scratch)).includes('killed.gguf')) continue;
    const { code, stderr } = await run('plan', out);
    assert.equal(code, 0, stderr);
    whole++;
  }
  if (whole === 0) assert.equal((await run('quantize', gpt2, out, '--to', 'q6_k', '--force')).code, 0);
});

test('Ctrl-C ends with 130 and leaves nothing', async () => {
  const folder = await mkdtemp(join(scratch, 'interrupt-'));
  const child = spawn(process.execPath, [main, 'quantize', gpt2, join(folder, 'x.gguf'), '--to', 'q4_k'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
  // As soon as the file under its other name appears.
  while ((await readdir(folder)).length === 0 && child.exitCode === null)
    await new Promise((next) => setTimeout(next, 5));
  child.kill('SIGINT');
  const code = await ended;
  const left = await readdir(folder);
  assert.ok((code === 130 && left.length === 0) || (code === 0 && left.join() === 'x.gguf'), `${code}: ${left}`);
});
