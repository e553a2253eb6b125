/** The scheduler on a golden model: cancellations, pauses, a line that is full, samples of one prompt, shares of keys. */
import assert from 'node:assert/strict';
import test, { after } from 'node:test';
import { PAGE } from '../../src/backend/backend.ts';
import { Model } from '../../src/engine/model.ts';
import { LanewiseError } from '../../src/errors.ts';
import { seedOfSample } from '../../src/sampling/random.ts';
import type { GenerateEvent, GenerateResult } from '../../src/schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../../src/schedule/generation-options.ts';
import type { Ticket } from '../../src/schedule/scheduler.ts';
import { type Hooks, makeStage, openGolden, type Stage, type StageOptions } from '../oracle/stage.ts';

const golden = await openGolden('mistral-window', 1);
after(() => golden.backend.dispose());

const roomy: StageOptions = { capacity: 64, maxRows: 64, maxWanted: 8, maxQueue: 8, stepBudgetMs: 1000 };
const ids = (length: number, seed = 0): number[] =>
  Array.from({ length }, (_, i) => 3 + (((i * 7 + seed * 11 + (i * seed) / 3) % 50) | 0));
const greedy: GenerateOptions = { temperature: 0, ignoreEos: true, maxTokens: 12 };

interface Reply {
  readonly ticket: Ticket;
  readonly events: GenerateEvent[];
  readonly result: Promise<GenerateResult>;
}

function submit({ engine }: Stage, tokenIds: readonly number[], options: GenerateOptions = {}): Reply {
  const settings = validateGenerate({ ...greedy, ...options });
  const events: GenerateEvent[] = [];
  let resolve: (result: GenerateResult) => void;
  const result = new Promise<GenerateResult>((told) => {
    resolve = told;
  });
  const ticket = engine.submit({ prompt: { tokenIds }, settings }, (event) => {
    events.push(event);
    if (event.type === 'done') resolve(event);
  });
  return { ticket, events, result };
}

/** On the same backend and its pages: nothing else may run. */
const alone = async (tokenIds: readonly number[], options: GenerateOptions = {}): Promise<GenerateResult> =>
  submit(makeStage(golden, roomy), tokenIds, options).result;

/** Forwards begun so far. */
function counted(options: StageOptions = roomy, hooks: Hooks = {}): { stage: Stage; forwards: () => number } {
  let forwards = 0;
  const during: Hooks['during'] = (phase, parts) => {
    if (phase === 'forward') forwards++;
    hooks.during?.(phase, parts);
  };
  return { stage: makeStage(golden, options, { ...hooks, during }), forwards: () => forwards };
}

const until = async (what: () => boolean): Promise<void> => {
  for (let turns = 0; !what(); turns++) {
    if (turns > 10_000) throw new Error('it never came');
    await new Promise((resolve) => setImmediate(resolve));
  }
};

function nothingLeft({ engine }: Stage): void {
  const { waiting, running, paused, pages } = engine.stats();
  assert.deepEqual([waiting, running, paused, pages.used], [0, 0, 0, 0]);
}

test('a cancellation takes effect within one step: in line, while the prompt is read, while tokens come', async () => {
  const { stage, forwards } = counted({ ...roomy, maxWanted: 1 });
  const first = submit(stage, ids(200));
  const queued = submit(stage, ids(5));
  const other = submit(stage, ids(9), { maxTokens: 40 });
  await until(() => forwards() === 1);
  queued.ticket.cancel();
  assert.equal(queued.events.at(-1)?.type, 'done', 'in line it ends at once');
  assert.deepEqual((await queued.result).tokenIds, []);
  await until(() => first.events.length === 1);
  const begun = forwards();
  first.ticket.cancel();
  first.ticket.cancel();
  const { finishReason, tokenIds } = await first.result;
  assert.deepEqual([finishReason, tokenIds], ['aborted', []]);
  assert.ok(forwards() <= begun + 1, `${forwards() - begun} more forwards`);
  await until(() => other.events.filter(({ type }) => type === 'token').length >= 3);
  const decoded = forwards();
  other.ticket.cancel();
  const partial = await other.result;
  assert.ok(forwards() <= decoded + 1, `${forwards() - decoded} more forwards`);
  const whole = await alone(ids(9), { maxTokens: 40 });
  assert.deepEqual(partial.tokenIds, whole.tokenIds.slice(0, partial.tokenIds.length));
  for (const { events } of [first, queued, other])
    assert.equal(events.filter(({ type }) => type === 'done').length, 1, 'one end each');
  nothingLeft(stage);
});

test('a cancellation behind the end changes nothing, nor does a second one with an error', async () => {
  const { stage } = counted();
  const done = submit(stage, ids(3));
  const expected = await done.result;
  done.ticket.cancel(new LanewiseError('Disposed', 'too late'));
  const both = submit(stage, ids(4));
  both.ticket.cancel();
  both.ticket.cancel(new LanewiseError('Disposed', 'not heard'));
  assert.deepEqual([expected.finishReason, (await both.result).finishReason], ['length', 'aborted']);
  assert.equal(done.events.filter(({ type }) => type === 'done').length, 1);
  nothingLeft(stage);
});

test('a full line refuses at once; what waits goes on, and afterwards there is room', async () => {
  const { stage, forwards } = counted({ ...roomy, maxWanted: 2, maxQueue: 3 });
  const accepted = Array.from({ length: 5 }, (_, i) => submit(stage, ids(4, i)));
  assert.throws(() => submit(stage, ids(4)), { code: 'Busy', message: /^3 requests wait/ });
  assert.equal(forwards(), 0, 'at once');
  const results = await Promise.all(accepted.map(({ result }) => result));
  assert.equal((await submit(stage, ids(4)).result).finishReason, 'length');
  for (const [i, { tokenIds }] of results.entries()) assert.deepEqual(tokenIds, (await alone(ids(4, i))).tokenIds);
  nothingLeft(stage);
});

test('a batch larger than the line waits for its own, and fails where others fill it', async () => {
  const stage = makeStage(golden, { ...roomy, maxWanted: 2, maxQueue: 1 });
  const prompts = Array.from({ length: 9 }, (_, i) => ({ tokenIds: ids(3, i) }));
  const model = new Model(stage.engine);
  const results = await model.generateBatch(prompts, { ...greedy, n: 2, maxTokens: 3 });
  assert.deepEqual(
    results.map(({ finishReason }) => finishReason),
    new Array(18).fill('length'),
  );
  const others = Array.from({ length: 3 }, (_, i) => submit(stage, ids(3, i)));
  const [refused] = await model.generateBatch([prompts[0]!], greedy);
  assert.equal(refused!.error?.code, 'Busy');
  for (const { result } of others) await result;
  nothingLeft(stage);
});

test('a deadline counts in line, a timeout from its start', async (t) => {
  let now = 1e12;
  t.mock.method(Date, 'now', () => now);
  const { stage, forwards } = counted({ ...roomy, maxWanted: 1 });
  const first = submit(stage, ids(100), { maxTokens: 30 });
  const late = submit(stage, ids(5), { deadline: now + 1000 });
  const short = submit(stage, ids(6), { timeoutMs: 60_000, maxTokens: 4 });
  await until(() => forwards() === 3);
  now += 2000;
  const before = forwards();
  const { finishReason, promptTokenIds } = await late.result;
  assert.deepEqual([finishReason, promptTokenIds], ['timeout', []]);
  assert.ok(forwards() <= before + 1);
  assert.equal((await first.result).finishReason, 'length');
  assert.equal((await short.result).finishReason, 'length', 'waiting did not count');
  const running = submit(stage, ids(7), { deadline: now + 500, maxTokens: 100 });
  await until(() => running.events.some(({ type }) => type === 'token'));
  now += 600;
  const partial = await running.result;
  assert.equal(partial.finishReason, 'timeout');
  assert.ok(partial.tokenIds.length > 0 && partial.tokenIds.length < 100);
  nothingLeft(stage);
});

test('a request of higher priority makes another one pause, which goes on with the same bits', async () => {
  for (const { capacity, maxWanted } of [
    { capacity: 64, maxWanted: 1 },
    { capacity: 4, maxWanted: 8 },
  ]) {
    let pauses = 0;
    const { stage } = counted(
      { ...roomy, capacity, maxWanted },
      { step: () => (pauses += stage.engine.stats().paused) },
    );
    const low = submit(stage, ids(130), { priority: 5, maxTokens: 40 });
    await until(() => low.events.filter(({ type }) => type === 'token').length >= 10);
    const high = submit(stage, ids(150, 1), { priority: 0 });
    const { tokenIds } = await high.result;
    assert.ok(pauses > 0, 'it paused');
    assert.equal(low.events.at(-1)?.type, 'token', 'it has not ended before');
    const { tokenIds: all, text, usage } = await low.result;
    assert.deepEqual(tokenIds, (await alone(ids(150, 1))).tokenIds);
    const expected = await alone(ids(130), { maxTokens: 40 });
    assert.deepEqual([all, text, usage], [expected.tokenIds, expected.text, expected.usage]);
    nothingLeft(stage);
  }
});

test('one that many have passed does not pause again, whoever comes', async () => {
  const { stage } = counted({ ...roomy, maxWanted: 1, maxQueue: 100 });
  const patient = submit(stage, ids(9), { priority: 1, maxTokens: 3 });
  let ended = false;
  void patient.result.then(() => (ended = true));
  let urgent = 0;
  // As soon as one has ended, the next urgent one is there.
  const next = async (): Promise<void> => {
    for (; !ended && urgent < 100; urgent++) await submit(stage, ids(3, urgent), { maxTokens: 1 }).result;
  };
  await Promise.all([next(), next()]);
  assert.ok(ended && urgent < 30, `${urgent} came before it`);
  await until(() => stage.engine.stats().running === 0);
  nothingLeft(stage);
});

test('what can never be computed is refused before anything is', async () => {
  const { stage, forwards } = counted({ ...roomy, capacity: 2 });
  const { contextLength } = golden.prompts.files;
  const codes: (string | undefined)[] = [];
  // A prompt beyond the context, one beyond the whole cache, and none.
  for (const length of [contextLength + 1, 3 * PAGE, 0])
    codes.push((await submit(stage, ids(length)).result).error?.code);
  assert.deepEqual(codes, ['ContextLengthExceeded', 'OutOfMemory', 'InvalidOption']);
  assert.equal(forwards(), 0);
  assert.equal(stage.engine.stats().ended, 3);
  nothingLeft(stage);
});

test('a listener that throws harms nobody else', async (t) => {
  const thrown: string[] = [];
  t.mock.method(globalThis, 'queueMicrotask', (run: () => void) => {
    try {
      run();
    } catch (error) {
      thrown.push((error as Error).message);
    }
  });
  const { stage } = counted();
  const settings = validateGenerate(greedy);
  let events = 0;
  stage.engine.submit({ prompt: { tokenIds: ids(5) }, settings }, () => {
    events++;
    throw new Error('mine');
  });
  const other = submit(stage, ids(6));
  assert.deepEqual((await other.result).tokenIds, (await alone(ids(6))).tokenIds);
  await until(() => stage.engine.stats().running === 0);
  assert.ok(events > 12 && thrown.length === events && thrown.every((message) => message === 'mine'));
  nothingLeft(stage);
});

test('a forward that fails ends those in it; what waits and what comes goes on', async () => {
  let broken = true;
  const { stage } = counted(
    { ...roomy, maxWanted: 2 },
    {
      during(phase) {
        if (phase !== 'forward' || !broken) return;
        broken = false;
        throw new LanewiseError('Internal', 'a kernel failed');
      },
    },
  );
  const replies = [1, 2, 3].map((seed) => submit(stage, ids(5, seed)));
  const results = await Promise.all(replies.map(({ result }) => result));
  assert.deepEqual(
    results.map(({ error }) => error?.message),
    ['a kernel failed', 'a kernel failed', undefined],
  );
  assert.deepEqual(results[2]!.tokenIds, (await alone(ids(5, 3))).tokenIds);
  nothingLeft(stage);
});

test('samples of one prompt share its pages, and each has a seed of its own', async () => {
  const stage = makeStage(golden, roomy);
  const model = new Model(stage.engine);
  const options = { temperature: 1, seed: 5, n: 4, maxTokens: 8, ignoreEos: true };
  const prompt = ids(150);
  const results = await model.generateBatch([{ tokenIds: prompt }], options);
  assert.deepEqual(
    results.map(({ seed }) => seed),
    [5, 1, 2, 3].map((seed, i) => (i === 0 ? seed : seedOfSample(5, i))),
  );
  for (const [i, { usage, tokenIds, seed }] of results.entries()) {
    assert.ok(i === 0 ? usage.cachedTokens === 0 : usage.cachedTokens >= 2 * PAGE, `${usage.cachedTokens}`);
    assert.deepEqual(tokenIds, (await alone(prompt, { ...options, n: 1, seed })).tokenIds);
  }
  assert.equal(new Set(results.map(({ tokenIds }) => `${tokenIds}`)).size, 4);
  nothingLeft(stage);
});

test('logits that are no numbers end one request, and nothing of it stays cached', async () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    let row: number | undefined = 1;
    const poison = (wanted: number): { row: number; value: number } | undefined => {
      if (row === undefined || wanted < 2) return undefined;
      const bad = { row, value };
      row = undefined;
      return bad;
    };
    const stage = makeStage(golden, { ...roomy, maxRows: 128 }, { poison });
    const [good, bad] = [submit(stage, ids(40)), submit(stage, ids(70, 1))];
    const [kept, lost] = [await good.result, await bad.result];
    assert.deepEqual([kept.finishReason, lost.finishReason, lost.error?.code], ['length', 'error', 'NumericError']);
    assert.deepEqual(lost.tokenIds, []);
    const again = await submit(stage, ids(70, 1)).result;
    assert.equal(again.usage.cachedTokens, 0);
    nothingLeft(stage);
    assert.deepEqual(again.tokenIds, (await alone(ids(70, 1))).tokenIds);
    assert.deepEqual(kept.tokenIds, (await alone(ids(40))).tokenIds);
  }
});

test('samples of a prompt that is cancelled all end, whatever they were at', async () => {
  for (const events of [1, 4, 9]) {
    const stage = makeStage(golden, { ...roomy, maxWanted: 2 });
    const controller = new AbortController();
    const { signal } = controller;
    const options = { ...greedy, temperature: 1, n: 3, maxTokens: 100, signal, throwOnAbort: false };
    const reasons: string[] = [];
    let heard = 0;
    for await (const event of new Model(stage.engine).generateStream([{ tokenIds: ids(100) }], options)) {
      if (event.type === 'done') reasons.push(event.finishReason);
      if (++heard === events) controller.abort();
    }
    assert.deepEqual(reasons, ['aborted', 'aborted', 'aborted']);
    nothingLeft(stage);
  }
});

test('two keys, one with ten times the requests, have the same share of the rows', async () => {
  const { stage } = counted({ ...roomy, maxQueue: 100, maxWanted: 8, capacity: 64, stepBudgetMs: 20 });
  const read = { many: 0, one: 0 };
  const open: Promise<unknown>[] = [];
  let over = false;
  const ask = (key: keyof typeof read, seed: number): void => {
    const settings = validateGenerate({ ...greedy, maxTokens: 1, fairnessKey: key });
    let before = 0;
    const prompt = { tokenIds: ids(120, seed) };
    open.push(
      new Promise<void>((resolve) => {
        stage.engine.submit({ prompt, settings }, (event) => {
          if (event.type === 'prefill' && !over) {
            read[key] += event.done - before;
            before = event.done;
          }
          if (event.type === 'done') resolve();
        });
      }),
    );
  };
  for (let n = 0; n < 60; n++) ask('many', 1000 + n);
  for (let n = 0; n < 6; n++) ask('one', 2000 + n);
  void Promise.all(open.slice(60)).then(() => (over = true));
  await Promise.all(open);
  // Up to the end of the last one of the smaller key.
  assert.equal(read.one, 6 * 120);
  assert.ok(read.many < 1.5 * read.one, `${read.many} rows beside ${read.one}`);
  nothingLeft(stage);
});
