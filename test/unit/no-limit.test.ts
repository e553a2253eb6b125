import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import test from 'node:test';
import { readRequest } from '../../src/cli/requests.ts';
import { validateLoad } from '../../src/engine/options.ts';
import { validateGenerate } from '../../src/schedule/generation-options.ts';
import { lanewise } from '../cli/run.ts';

test('-1 is no limit where a limit is a number', () => {
  const settings = validateGenerate({ maxTokens: -1, topK: -1, timeoutMs: -1, seed: -1 });
  assert.equal(settings.maxTokens, Number.MAX_SAFE_INTEGER);
  assert.equal(settings.topK, 0);
  assert.equal(settings.timeoutMs, Number.POSITIVE_INFINITY);
  assert.ok(Number.isSafeInteger(settings.seed) && settings.seed >= 0);
  assert.equal(validateGenerate({ maxTokens: Number.POSITIVE_INFINITY }).maxTokens, Number.MAX_SAFE_INTEGER);
});

test('where -1 is not allowed, the error says what to use', () => {
  for (const options of [{ maxTokens: -2 }, { topK: -2 }, { timeoutMs: -0.5 }, { timeoutMs: 0 }, { seed: -2 }])
    assert.throws(() => validateGenerate(options), /\((?:0, or )?-1: /);
  for (const options of [{ temperature: -1 }, { topP: -1 }, { minP: -1 }, { speculate: -1 }])
    assert.throws(() => validateGenerate(options), { code: 'InvalidOption' });
  for (const options of [{ contextLength: -1 }, { threads: -1 }])
    assert.throws(() => validateLoad(options), /default: /);
});

test('a limit in seconds of an earlier version is refused with the name in milliseconds', async () => {
  assert.throws(() => validateGenerate({ timeout: 5 } as object), {
    message: 'timeout must be given as timeoutMs, in milliseconds, got 5',
  });
  const flags = await lanewise(['generate', '--prompt', 'x', '--timeout', '5']);
  assert.deepEqual(flags, {
    code: 1,
    out: '',
    err: 'error: --timeout must be given as --timeout-ms, in milliseconds\n',
  });
  assert.throws(
    () => readRequest({ prompt: 'x', timeout: 5 }, 'line 1', () => 'x'),
    /line 1: "timeout" must be given as timeout-ms, in milliseconds/,
  );
});

test('the command line takes -1 with and without an equals sign', async () => {
  const flags = ['--max-tokens', '-1', '--top-k=-1', '--timeout-ms', '-1', '--temperature', '0', '--json'];
  const { code, out, err } = await lanewise(['generate', '--prompt', 'Once upon a time', ...flags]);
  assert.equal(code, 0, err);
  assert.match(JSON.parse(out).finish_reason, /^(?:stop|contextLength)$/);
});

test('threads start whatever flags the program was started with', async () => {
  const program = `import { load } from ${JSON.stringify(new URL('../../src/node.ts', import.meta.url).href)};
    await using model = await load(undefined, { inline: true, threads: 2 });
    for await (const event of model.generate('Once', { maxTokens: 2, temperature: 0 }))
      if (event.type === 'done') console.log(model.threads, event.text.length > 0);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  for await (const piece of child.stdout) out += piece;
  assert.equal(out, '2 true\n');
});
