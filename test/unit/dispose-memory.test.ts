/** Disposed models give their memory back, also while the program still holds the objects. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';

const MB = 2 ** 20;

/** Bytes of resident memory, and file descriptors, that more models cost a process that has had some already. */
function growth(options: string, models: number): { readonly memory: number; readonly descriptors: number } {
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
    for (let n = 0; n < ${Math.min(5, models)}; n++) await one();
    await settled();
    const before = { memory: process.memoryUsage.rss(), descriptors: descriptors() };
    for (let n = 0; n < ${models}; n++) await one();
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

for (const [models, options, most] of [
  [30, '{ inline: true, threads: 1 }', 20],
  // What ended threads had allocated stays with the allocator of the C library: some MB for each of up to 16 arenas.
  [12, '{ inline: true, threads: 2 }', 60],
  // Each costs the start of an engine: few show as much.
  [4, '{ threads: 1 }', 20],
] as const) {
  test(`${models} models with ${options}, disposed and kept, cost less than ${most} MB`, () => {
    const { memory, descriptors } = growth(options, models);
    assert.ok(memory < most * MB, `${(memory / MB).toFixed(1)} MB more`);
    assert.equal(descriptors, 0);
  });
}

test('a model keeps no file open, so one that is dropped undisposed is collected without a warning', () => {
  const script = `
    import { readdirSync, readlinkSync } from 'node:fs';
    import { load, embeddedModel } from './src/node.ts';
    const open = () => readdirSync('/proc/self/fd').flatMap((name) => {
      try {
        return [readlinkSync('/proc/self/fd/' + name)].filter((target) => target.endsWith('.safetensors'));
      } catch {
        return [];
      }
    });
    let model = await load(embeddedModel, { inline: true, threads: 2 });
    if (process.platform === 'linux') console.log(JSON.stringify(open()));
    await model.complete('Once upon a time', { maxTokens: 1 });
    model = undefined;
    for (let n = 0; n < 10; n++) {
      gc();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }`;
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ['--expose-gc', '--input-type=module', '--eval', script],
    { encoding: 'utf8', cwd: `${import.meta.dirname}/../..` },
  );
  assert.deepEqual([status, stderr], [0, '']);
  if (process.platform === 'linux') assert.equal(stdout, '[]\n');
});
