/** One answer on its way from an engine to its reader: when it begins, what of it can be read, how it ends. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { onAbort } from '../../src/engine/abort.ts';
import { EventQueue } from '../../src/engine/event-queue.ts';
import { Generation } from '../../src/engine/generation.ts';
import { LanewiseError } from '../../src/errors.ts';
import { emptyResult, type GenerateEvent, type GenerateResult } from '../../src/schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../../src/schedule/generation-options.ts';

type Listener = (event: GenerateEvent) => void;

/** An engine of the test: tells what it is told to. */
function stage(options: GenerateOptions = {}, refuse?: LanewiseError) {
  const told: { listener?: Listener; submitted: number; cancelled: number } = { submitted: 0, cancelled: 0 };
  const generation = new Generation((listener) => {
    told.submitted++;
    if (refuse) throw refuse;
    told.listener = listener;
    return {
      cancel() {
        // As the scheduler does: the end comes later, once.
        if (told.cancelled++ === 0) setImmediate(() => listener({ type: 'done', ...result('aborted') }));
      },
    };
  }, validateGenerate(options));
  return { generation, told };
}

const result = (finishReason: GenerateResult['finishReason'], error?: LanewiseError): GenerateResult => ({
  ...emptyResult('aborted', 1, error),
  finishReason,
  text: 'ab',
});
const token = (text: string): GenerateEvent => ({ type: 'token', id: 7, text, logprob: -1 });

/** Whether no rejection went unheard. */
async function quietly(work: () => Promise<void>): Promise<void> {
  const heard: unknown[] = [];
  const listener = (reason: unknown): void => void heard.push(reason);
  process.on('unhandledRejection', listener);
  try {
    await work();
    for (let n = 0; n < 3; n++) await new Promise((resolve) => setImmediate(resolve));
  } finally {
    process.off('unhandledRejection', listener);
  }
  assert.deepEqual(heard, []);
}

test('nothing is asked of the engine before something is read, and then once', async () => {
  const readers: ((generation: Generation) => Promise<unknown>)[] = [
    (generation) => generation.next(),
    (generation) => generation.textStream.next(),
    (generation) => generation.result,
  ];
  for (const read of readers) {
    const { generation, told } = stage();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(told.submitted, 0);
    const [first, second] = [read(generation), generation.result];
    await Promise.resolve();
    assert.equal(told.submitted, 1);
    told.listener!(token('ab'));
    told.listener!({ type: 'done', ...result('stop') });
    assert.equal((await second).finishReason, 'stop');
    await first;
  }
});

test('events, text and result of one answer', async () => {
  const { generation, told } = stage();
  const whole = generation.result;
  for (const event of [token('a'), token(''), { type: 'text', text: 'b' } as const]) told.listener!(event);
  told.listener!({ type: 'done', ...result('stop') });
  const pieces: string[] = [];
  for await (const piece of generation.textStream) pieces.push(piece);
  assert.deepEqual(pieces, ['a', 'b']);
  assert.deepEqual(await whole, result('stop'));
  assert.deepEqual(await generation.result, await whole);
  assert.equal((await generation.next()).done, true);
});

test('leaving the loop ends the request, and waits for its end; the result has the text so far', async () => {
  const { generation, told } = stage();
  let ended = false;
  void generation.result.then(() => (ended = true));
  told.listener!(token('a'));
  for await (const _ of generation) break;
  assert.ok(ended && told.cancelled === 1);
  assert.equal((await generation.result).finishReason, 'aborted');
  assert.equal((await generation.next()).done, true);
});

test('an answer that was left unread never begins', async () => {
  const { generation, told } = stage();
  await generation.return();
  assert.equal((await generation.result).finishReason, 'aborted');
  assert.equal((await generation.next()).done, true);
  {
    await using unread = generation;
    assert.ok(unread);
  }
  await assert.rejects(stage().generation.throw(new Error('mine')), /mine/);
  assert.equal(told.submitted, 0);
});

test('errors come where somebody reads, behind the events before them, and nowhere else', async () => {
  const busy = new LanewiseError('Busy', 'too many');
  await quietly(async () => {
    // Refused at once: by every way of reading.
    await assert.rejects(stage({}, busy).generation.next(), busy);
    await assert.rejects(stage({}, busy).generation.result, busy);
    await assert.rejects(async () => {
      for await (const _ of stage({}, busy).generation.textStream);
    }, busy);
    const { generation, told } = stage();
    const first = generation.next();
    await Promise.resolve();
    told.listener!(token('a'));
    const error = new LanewiseError('NumericError', 'no numbers');
    told.listener!({ type: 'done', ...result('error', error) });
    assert.equal(((await first).value as { type: string }).type, 'token');
    await assert.rejects(generation.next(), error);
    assert.equal((await generation.next()).done, true);
    await assert.rejects(generation.result, error);
    // An error that nobody looks at is no unhandled rejection.
    const unread = stage();
    void unread.generation.next();
    await Promise.resolve();
    unread.told.listener!(token('a'));
    unread.told.listener!({ type: 'done', ...result('error', error) });
    await unread.generation.return();
  });
});

test('an abort is a result, or an error, as asked; so is a timeout', async () => {
  await quietly(async () => {
    for (const throwOnAbort of [true, false]) {
      const controller = new AbortController();
      const { generation, told } = stage({ signal: controller.signal, throwOnAbort });
      const types: string[] = [];
      const reading = (async () => {
        for await (const { type } of generation) types.push(type);
      })();
      await Promise.resolve();
      controller.abort();
      controller.abort();
      if (throwOnAbort) {
        await assert.rejects(reading, { name: 'AbortError' });
        await assert.rejects(generation.result, { name: 'AbortError' });
      } else {
        await reading;
        assert.equal((await generation.result).finishReason, 'aborted');
      }
      assert.deepEqual([types, told.cancelled], [['done'], 1]);
    }
    const before = stage({ signal: AbortSignal.abort() });
    await assert.rejects(before.generation.result, { name: 'AbortError' });
    assert.equal(before.told.submitted, 0);
    for (const throwOnTimeout of [true, false]) {
      const { generation, told } = stage({ timeoutMs: 5, throwOnTimeout });
      const whole = generation.result;
      told.listener!({ type: 'done', ...result('timeout') });
      if (throwOnTimeout) await assert.rejects(whole, { code: 'Timeout' });
      else assert.equal((await whole).finishReason, 'timeout');
    }
  });
});

test('a queue gives events in order to readers in order, then its error once', async () => {
  const queue = new EventQueue<number>();
  const early = [queue.next(), queue.next(), queue.next(), queue.next()];
  queue.push(1);
  queue.push(2);
  const error = new Error('the end');
  queue.end(error);
  queue.end(new Error('a second end is none'));
  assert.deepEqual(await early[0], { done: false, value: 1 });
  assert.deepEqual(await early[1], { done: false, value: 2 });
  await assert.rejects(early[2]!, error);
  assert.equal((await early[3]!).done, true);
  assert.equal((await queue.next()).done, true);
  const late = new EventQueue<number>();
  for (let n = 0; n < 5; n++) late.push(n);
  late.end();
  const read: number[] = [];
  for (let next = await late.next(); !next.done; next = await late.next()) read.push(next.value);
  assert.deepEqual(read, [0, 1, 2, 3, 4]);
});

test('two hundred requests on one signal add one listener to it, and those that ended are not told', (t) => {
  const controller = new AbortController();
  const add = t.mock.method(controller.signal, 'addEventListener');
  const told: number[] = [];
  const quiet = Array.from({ length: 200 }, (_, i) => onAbort(controller.signal, () => told.push(i)));
  for (const [i, off] of quiet.entries()) if (i % 2 === 0) off();
  assert.equal(add.mock.callCount(), 1);
  controller.abort();
  assert.deepEqual(
    told,
    Array.from({ length: 100 }, (_, i) => 2 * i + 1),
  );
  onAbort(controller.signal, () => told.push(-1));
  assert.equal(told.at(-1), -1, 'at once where it is aborted already');
  onAbort(undefined, () => told.push(-2))();
  assert.equal(told.at(-1), -1);
});
