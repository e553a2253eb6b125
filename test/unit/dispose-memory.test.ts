/** Disposed models give their memory back, also while the program still holds the objects. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';

const MB = 2 ** 20;

/** Bytes of resident memory, and file descriptors, that 30 more models cost a process that has had some already. */
function growth(options: string): { readonly memory: number; readonly descriptors: number } {
  const script = `
    import { readdirSync } from 'node:fs';
    import { load, embeddedModel } from './src/node.ts';
    const settled = async () => {
      for (let n = 0; n < 5; n++) {
        gc();
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const descriptors = () => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0);
    const kept = [];
    const one = async () => {
      const model = await load(embeddedModel, ${options});
      for await (const event of model.generate('Once upon a time', { maxTokens: 2 })) void event;
      kept.push(model);
      await model.dispose();
    };
    for (let n = 0; n < 8; n++) await one();
    await settled();
    const before = { memory: process.memoryUsage.rss(), descriptors: descriptors() };
    for (let n = 0; n < 30; n++) await one();
    await settled();
    console.log(JSON.stringify({
      memory: process.memoryUsage.rss() - before.memory,
      descriptors: descriptors() - before.descriptors,
      kept: kept.length,
    }));`;
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '--eval', script],
    { encoding: 'utf8', cwd: `${import.meta.dirname}/../..` },
  );
  assert.equal(status, 0, stderr);
  assert.doesNotMatch(stderr, /Warning/);
  return JSON.parse(stdout) as { memory: number; descriptors: number };
}

test('30 models, disposed and kept, cost less than 20 MB', () => {
  const { memory, descriptors } = growth('{ threads: 2 }');
  assert.ok(memory < 20 * MB, `${(memory / MB).toFixed(1)} MB more`);
  assert.equal(descriptors, 0);
});
