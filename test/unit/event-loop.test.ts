/** Turns of the event loop, with and without setImmediate. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { nextTurn } from '../../src/event-loop.ts';

const source = new URL('../../src/event-loop.ts', import.meta.url).href;

/** Runs a module in its own process, without `setImmediate`, as in a browser. */
function inProcess(code: string): { status: number | null; stdout: string; stderr: string } {
  const args = ['--input-type=module', '--eval', `import { nextTurn } from ${JSON.stringify(source)};\n${code}`];
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 });
}

test('timers run between turns', async () => {
  let fired = false;
  setTimeout(() => (fired = true), 5);
  const end = performance.now() + 5000;
  while (!fired && performance.now() < end) await nextTurn();
  assert.ok(fired);
});

test('a pending turn keeps the process alive, and none is left behind', () => {
  const { status, stdout, stderr } = inProcess(`for (let n = 0; n < 3; n++) await nextTurn(); console.log('done');`);
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'done\n', stderr: '' });
});

test('without setImmediate: turns come in order, timers between them, faster than browsers clamp timers', () => {
  const { status, stdout } = inProcess(`
    delete globalThis.setImmediate;
    let fired = false;
    setTimeout(() => (fired = true), 20);
    const order = [];
    await Promise.all([1, 2, 3].map((n) => nextTurn().then(() => order.push(n))));
    let turns = 0;
    for (; !fired; turns++) await nextTurn();
    console.log(JSON.stringify({ order, many: turns > 20 }));
    process.exit();
  `);
  assert.equal(status, 0);
  assert.deepEqual(JSON.parse(stdout), { order: [1, 2, 3], many: true });
});
