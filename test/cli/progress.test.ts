import assert from 'node:assert/strict';
import test from 'node:test';
import { createProgress } from '../../src/cli/progress.ts';

function terminal(options: { isTTY?: boolean; columns?: number } = { isTTY: true, columns: 120 }) {
  const written: string[] = [];
  return { ...options, written, write: (text: string) => written.push(text) };
}
const clear = '\r\x1b[2K';

test('writes nothing into files and pipes', () => {
  const stream = terminal({});
  let time = 0;
  const progress = createProgress(stream, 'load', { now: () => (time += 5000) });
  progress.update(1, 2);
  progress.end();
  assert.deepEqual(stream.written, []);
});

test('appears after a second, shows share, rate and time left, is cleared', () => {
  const stream = terminal();
  let time = 0;
  const progress = createProgress(stream, 'load', { now: () => time });
  time = 999;
  progress.update(400e6, 2e9);
  assert.deepEqual(stream.written, []);
  time = 2000;
  progress.update(1e9, 2e9);
  time = 2050;
  progress.update(1.1e9, 2e9);
  assert.deepEqual(stream.written, [
    `${clear}load [############------------]  50% 1.00 GB of 2.00 GB, 500.0 MB/s, 2 s left`,
  ]);
  progress.end();
  assert.equal(stream.written.at(-1), clear);
  assert.equal(stream.written.length, 2);
});

test('short work leaves no trace', () => {
  const stream = terminal();
  const progress = createProgress(stream, 'load', { now: () => 0 });
  progress.update(1, 1);
  progress.end();
  assert.deepEqual(stream.written, []);
});

test('counts tokens and never wraps', () => {
  const stream = terminal({ isTTY: true, columns: 40 });
  let time = 0;
  const progress = createProgress(stream, 'prefill', { unit: 'tokens', now: () => time });
  time = 2000;
  progress.update(100, 500);
  const line = stream.written[0]!.slice(clear.length);
  assert.equal(line, 'prefill [#####-------------------]  20%');
  assert.ok(line.length < 40);
});

test('an unknown total divides by nothing', () => {
  const stream = terminal();
  let time = 0;
  const progress = createProgress(stream, 'load', { now: () => time });
  time = 1500;
  progress.update(0, 0);
  assert.match(stream.written[0]!, / 0% 0 B of 0 B, 0 B\/s$/);
});
