import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import test from 'node:test';
import { validateLoad } from '../../src/engine/options.ts';
import { validateGenerate } from '../../src/schedule/generation-options.ts';
import { lanewise } from '../cli/run.ts';

test('-1 is no limit where a limit is a number', () => {
  const settings = validateGenerate({ maxTokens: -1, topK: -1, timeout: -1, seed: -1 });
  assert.equal(settings.maxTokens, Number.MAX_SAFE_INTEGER);
  assert.equal(settings.topK, 0);
  assert.equal(settings.timeout, Number.POSITIVE_INFINITY);
  assert.ok(Number.isSafeInteger(settings.seed) && settings.seed >= 0);
  assert.equal(validateGenerate({ maxTokens: Number.POSITIVE_INFINITY }).maxTokens, Number.MAX_SAFE_INTEGER);
});

test('where -1 means nothing, the error says what to write', () => {
  for (const options of [{ maxTokens: -2 }, { topK: -2 }, { timeout: -0.5 }, { timeout: 0 }, { seed: -2 }])
    assert.throws(() => validateGenerate(options), /\((?:0, or )?-1: /);
  for (const options of [{ temperature: -1 }, { topP: -1 }, { minP: -1 }, { speculate: -1 }])
    assert.throws(() => validateGenerate(options), { code: 'InvalidOption' });
  for (const options of [{ contextLength: -1 }, { threads: -1 }])
    assert.throws(() => validateLoad(options), /left out: /);
});

test('the command line takes -1 with and without an equals sign', async () => {
  const flags = ['--max-tokens', '-1', '--top-k=-1', '--timeout', '-1', '--temperature', '0', '--json'];
  const { code, out, err } = await lanewise(['generate', '--prompt', 'Once upon a time', ...flags]);
  assert.equal(code, 0, err);
  assert.match(JSON.parse(out).finish_reason, /^(?:stop|contextLength)$/);
});

test('threads start whatever flags the program was started with', async () => {
  const program = `import { load } from ${JSON.stringify(new URL('../../src/node.ts', import.meta.url).href)};
    await using model = await load(undefined, { threads: 2 });
    for await (const event of model.generate('Once', { maxTokens: 2, temperature: 0 }))
      if (event.type === 'done') console.log(model.threads, event.text.length > 0);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  for await (const piece of child.stdout) out += piece;
  assert.equal(out, '2 true\n');
});
