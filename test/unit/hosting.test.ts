/** A connection to an engine in a thread of its own: calls, events, errors, and threads that are lost. */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { BackendError, FormatError, LanewiseError, OptionError } from '../../src/errors.ts';
import { Caller, type CallerOptions } from '../../src/hosting/caller.ts';
import type { EngineMessages, EngineThread } from '../../src/hosting/messages.ts';
import { Supervisor } from '../../src/hosting/supervisor.ts';
import { threadOf } from '../../src/hosting/thread-node.ts';

const file = new URL('./hosting-worker.ts', import.meta.url);
const startThread = (): EngineThread =>
  threadOf(new Worker(file, { execArgv: [], resourceLimits: { maxOldGenerationSizeMb: 40 } }));

async function connect(t: TestContext, options?: CallerOptions): Promise<Caller> {
  const caller = new Caller(startThread(), options);
  t.after(() => caller.end(new LanewiseError('Disposed', 'the test is over')));
  await caller.ready;
  return caller;
}

const thrownBy = (call: Promise<unknown>): Promise<unknown> =>
  call.then(
    () => assert.fail('expected a failure'),
    (error: unknown) => error,
  );

test('results come back to the calls that they are of', async (t) => {
  const caller = await connect(t);
  const values = [1, 'two', { three: [3n] }, new Map([[4, new Set([5])]]), Float32Array.of(6)];
  assert.deepEqual(await Promise.all(values.map((value) => caller.call('echo', [value]))), values);
  const { values: moved } = await caller.call<{ values: Float32Array }>('move', []);
  assert.deepEqual([moved.length, moved[999]], [1000, 2]);
});

test('errors keep class, code, fields, stack and cause', async (t) => {
  const caller = await connect(t);
  const format = await thrownBy(caller.call('fail', ['format']));
  assert.ok(format instanceof FormatError);
  const { code, message, offset, key, name, stack } = format;
  assert.deepEqual([code, offset, key, name], ['HeaderTooSmall', 8, 'x', 'FormatError']);
  assert.equal(message, 'a.gguf at byte 8, "x": too short');
  assert.match(stack!, /FormatError: a\.gguf[\s\S]*hosting-worker/);
  const type = await thrownBy(caller.call('fail', ['type']));
  assert.ok(type instanceof TypeError && type.cause instanceof LanewiseError);
  assert.equal(type.cause.code, 'NumericError');
  const abort = await thrownBy(caller.call('fail', ['abort']));
  assert.ok(abort instanceof DOMException);
  assert.deepEqual([abort.name, abort.message], ['AbortError', 'no more']);
  assert.equal(await thrownBy(caller.call('fail', ['text'])), 'a text');
  assert.match(String(await thrownBy(caller.call('nothing', []))), /TypeError: the engine has no method nothing/);
});

test('values that cannot be cloned are refused on either side, and other calls go on', async (t) => {
  const caller = await connect(t);
  const refused = await thrownBy(caller.call('echo', [() => {}]));
  assert.ok(refused instanceof OptionError && /inline: true/.test(refused.message));
  const [result, other] = await Promise.allSettled([caller.call('function', []), caller.call('echo', [1])]);
  assert.equal(result.status, 'rejected');
  assert.deepEqual(other, { status: 'fulfilled', value: 1 });
});

test('events of a turn come in one message, in order, before the result', async (t) => {
  const thread = startThread();
  let messages = 0;
  const counting: EngineThread = {
    ...thread,
    listen: (onMessages) =>
      thread.listen((list: EngineMessages) => {
        messages++;
        onMessages(list);
      }),
  };
  const caller = new Caller(counting);
  t.after(() => caller.end(new LanewiseError('Disposed', 'the test is over')));
  await caller.ready;
  messages = 0;
  const events: unknown[] = [];
  assert.equal(await caller.call('stream', [3, 50], { onEvent: (event) => events.push(event) }), 150);
  assert.deepEqual(
    events,
    Array.from({ length: 150 }, (_, i) => [Math.floor(i / 50), i % 50]),
  );
  assert.ok(messages <= 4, `${messages} messages`);
});

test('an abort cancels the call, and its reason is the one of the caller', async (t) => {
  const caller = await connect(t);
  const controller = new AbortController();
  const reason = { of: 'my own' };
  const waiting = thrownBy(caller.call('wait', [], { signal: controller.signal }));
  controller.abort(reason);
  assert.equal(await waiting, reason);
  assert.equal(await thrownBy(caller.call('count', [], { signal: controller.signal })), reason);
  assert.equal(await caller.call('count', []), 1);
});

for (const [how, expected] of [
  ['exit', /code 3/],
  ['throwLater', /nobody caught this/],
  ['fillHeap', /heap is full/],
] as const) {
  test(`a thread that is lost (${how}) fails what is in flight and all later calls`, async (t) => {
    const caller = await connect(t);
    const inFlight = thrownBy(caller.call('wait', []));
    caller.call(how, []).catch(() => {});
    for (const error of [await inFlight, await thrownBy(caller.call('count', []))]) {
      assert.ok(error instanceof BackendError);
      assert.equal(error.code, 'EngineLost');
      assert.match(error.message, expected);
    }
    assert.equal((await caller.lost).code, 'EngineLost');
  });
}

test('a thread that does not respond is ended, a busy one is not', async (t) => {
  const patient = await connect(t, { lookMs: 10, patience: 1e6 });
  assert.equal(await patient.call('block', [300]), 300);
  // Starting may take any time here.
  const options = { lookMs: 10, patience: 1e6 };
  const [blocked, waiting] = [await connect(t, options), await connect(t, options)];
  options.patience = 20;
  // Looks end the call, not a time: the thread is blocked for good.
  const error = (await thrownBy(blocked.call('block', [1e9]))) as BackendError;
  assert.match(error.message, /did not respond/);
  // An engine that only waits answers pings.
  options.patience = 1000;
  const controller = new AbortController();
  const call = thrownBy(waiting.call('wait', [], { signal: controller.signal }));
  await sleep(300);
  controller.abort('enough');
  assert.equal(await call, 'enough');
});

const ask = async <T>(supervisor: Supervisor<unknown>, method: string): Promise<T> =>
  supervisor.succeeded((await supervisor.running()).caller.call<T>(method, []));

function supervise(t: TestContext): { supervisor: Supervisor<number>; loads: () => number } {
  let loads = 0;
  const load = async (caller: Caller): Promise<number> => {
    loads++;
    return caller.call<number>('count', []);
  };
  const supervisor = new Supervisor({ name: () => 'the model', start: startThread, load });
  t.after(() => supervisor.dispose());
  return { supervisor, loads: () => loads };
}

test('the next call after a loss has a new engine; an engine that is always lost is given up', async (t) => {
  const { supervisor, loads } = supervise(t);
  const codeOf = async (call: Promise<unknown>): Promise<string> => ((await thrownBy(call)) as LanewiseError).code;
  assert.equal(await ask(supervisor, 'count'), 2);
  for (const turn of [1, 2, 3]) {
    assert.equal(await codeOf(ask(supervisor, 'exit')), 'EngineLost');
    assert.equal(await ask(supervisor, 'count'), 2, 'a fresh engine');
    assert.equal(loads(), turn + 1);
  }
  for (let n = 0; n < 2; n++) assert.equal(await codeOf(ask(supervisor, 'exit')), 'EngineLost');
  const gone = (await thrownBy(ask(supervisor, 'count'))) as LanewiseError;
  assert.match(gone.message, /the model is gone: its engine was lost 2 times/);
  assert.equal(loads(), 5);
});

test('disposal ends what is in flight, may be asked for twice, and nothing starts afterwards', async (t) => {
  const { supervisor, loads } = supervise(t);
  await supervisor.running();
  const inFlight = thrownBy(ask(supervisor, 'wait'));
  await sleep(1);
  await Promise.all([supervisor.dispose(), supervisor.dispose()]);
  assert.equal(((await inFlight) as LanewiseError).code, 'Disposed');
  assert.equal(((await thrownBy(ask(supervisor, 'count'))) as LanewiseError).code, 'Disposed');
  assert.equal(loads(), 1);
});

test('a thread that cannot start, or whose load fails, counts as no loss', async () => {
  const failing = new Supervisor({
    name: () => 'the model',
    start: () => {
      throw new Error('no threads here');
    },
    load: async () => {},
  });
  assert.match(String(await thrownBy(failing.running())), /no threads here/);
  assert.equal(failing.started, false);
  await failing.dispose();
  let turn = 0;
  const load = (caller: Caller): Promise<number> => caller.call(turn++ < 3 ? 'fail' : 'count', ['format']);
  const supervisor = new Supervisor({ name: () => 'the model', start: startThread, load });
  for (let n = 0; n < 3; n++) assert.ok((await thrownBy(supervisor.running())) instanceof FormatError);
  assert.equal((await supervisor.running()).loaded, 1);
  await supervisor.dispose();
});
