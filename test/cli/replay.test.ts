/** `--record` and `lanewise replay`. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { golden, lanewise } from './run.ts';

test('a recorded text replays equal; a changed one names token and layer, with exit code 1', async (t) => {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-replay-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  const file = join(path, 'run.jsonl');
  const args = ['--prompt', 'One day', '--max-tokens', '6', '--seed', '2', '--quantize', 'q8_0'];
  const recorded = await lanewise(['generate', ...args, '--record', file]);
  assert.equal(recorded.code, 0, recorded.err);
  assert.equal((await lanewise(['generate', ...args])).out, recorded.out);
  const equal = await lanewise(['replay', file, '--threads', '1']);
  assert.deepEqual([equal.code, equal.err], [0, '']);
  assert.match(
    equal.out,
    /^recorded with lanewise-stories: gpt2, 6 layers, q8_0, kv cache f32, \d+ threads\nrequest 0: \d+ prompt tokens, 6 tokens: equal \(\d+ states of layers, 6 rows of logits\)\n$/,
  );
  // Layer 4 of the second prompt token.
  const text = await readFile(file, 'utf8');
  const entry = text.split('\n').find((line) => line.includes('"at":0'))!;
  const { rows, ...rest } = JSON.parse(entry) as { rows: string[] };
  const [first, second, ...others] = rows as [string, string];
  const changed = `${second.slice(0, 40)}ffffffff${second.slice(48)}`;
  await writeFile(file, text.replace(entry, JSON.stringify({ ...rest, rows: [first, changed, ...others] })));
  const differs = await lanewise(['replay', file]);
  assert.equal(differs.code, 1);
  assert.match(
    differs.out,
    /\nrequest 0: .*: differs first at token 1 of the prompt \(".+", id \d+\), in layer\[4\]\n$/,
  );
  const json = await lanewise(['replay', file, '--json']);
  assert.equal(json.code, 1);
  const { equal: same, requests } = JSON.parse(json.out);
  assert.deepEqual([same, requests[0].difference.place, requests[0].difference.position], [false, 'layer[4]', 1]);
  const other = await lanewise(['replay', file, golden('models/gpt2-tied-f32')]);
  assert.deepEqual([other.code, other.out], [1, '']);
  assert.match(other.err, /^error: .*run\.jsonl: recorded with lanewise-stories.*\n$/);
});

test('a file that is no recording is refused', async () => {
  const { code, err } = await lanewise(['replay', golden('models/gpt2-tied-f32/config.json')]);
  assert.equal(code, 1);
  assert.match(err, /^error: .*config\.json: line 1: expected a JSON object, found "\{"\n$/);
});
