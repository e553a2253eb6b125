/** Models whose engine has a thread of its own: the API and the bits of one that runs inline, and a free event loop. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import test, { after, before, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Engine } from '../../src/engine/engine.ts';
import { Model } from '../../src/engine/model.ts';
import { BackendError, LanewiseError, OptionError, OutOfMemoryError } from '../../src/errors.ts';
import type { EngineThread } from '../../src/hosting/messages.ts';
import { hostedEngine } from '../../src/hosting/remote-engine.ts';
import { startEngineThread } from '../../src/hosting/thread-node.ts';
import {
  ChatTemplate,
  configureLogging,
  embeddedModel,
  type GenerateEvent,
  JsonNumber,
  type LoadOptions,
  load,
  loadEncoder,
  type Prompt,
} from '../../src/node.ts';
import { wholeForward } from '../whole-forward.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const greedy = { temperature: 0, maxTokens: 24, seed: 1 };

let hosted: Model;
let inline: Model;
before(async () => {
  [hosted, inline] = await Promise.all([load(), load(undefined, { inline: true })]);
});
after(async () => {
  await Promise.all([hosted?.dispose(), inline?.dispose()]);
});

/** Without times, which differ. */
async function eventsOf(model: Model, prompt: Prompt, options: object): Promise<unknown[]> {
  const events: unknown[] = [];
  for await (const event of model.generate(prompt, options)) {
    if (event.type === 'done') {
      const { timings, usage, ...result } = event;
      const { cachedTokens: _, ...rest } = usage;
      events.push({ ...result, usage: rest, steps: timings.steps.length });
    } else if (event.type !== 'prefill') events.push(event);
  }
  return events;
}

test('a hosted model has the events of an inline one, to the bit', async () => {
  for (const options of [greedy, { seed: 7, maxTokens: 30, logprobs: 3, stop: ['."'] }]) {
    const expected = await eventsOf(inline, 'Once upon a time', options);
    assert.deepEqual(await eventsOf(hosted, 'Once upon a time', options), expected);
    assert.ok(expected.length > 10);
  }
  const prompts = [
    'One day',
    { tokenIds: [559, 552] },
    { prompt: { text: 'The', parseSpecial: true }, options: { seed: 3 } },
  ];
  const texts = async (model: Model): Promise<unknown[]> =>
    (await model.generateBatch(prompts, { seed: 1, maxTokens: 9 })).map(({ text, tokenIds, seed }) => [
      text,
      tokenIds,
      seed,
    ]);
  assert.deepEqual(await texts(hosted), await texts(inline));
});

test('what a hosted model says of itself is what an inline one says', async () => {
  for (const key of [
    'name',
    'description',
    'contextLength',
    'eosTokenIds',
    'quantize',
    'threads',
    'vectorBits',
  ] as const)
    assert.deepEqual(hosted[key], inline[key], key);
  for (const key of ['maxRows', 'maxSequences'] as const) assert.equal(hosted[key], inline[key]);
  assert.ok(hosted.loadTimes.bytesRead > 1e6);
  assert.deepEqual(hosted.memory().weights, inline.memory().weights);
  assert.deepEqual(Object.keys(hosted.stats()), Object.keys(inline.stats()));
  const text = 'A café, 東京 and <|endoftext|>';
  assert.deepEqual(hosted.encode(text), inline.encode(text));
  assert.equal(hosted.tokenizer!.decode(hosted.encode(text)), inline.tokenizer!.decode(inline.encode(text)));
  assert.equal(hosted.chatFormat.template.source, inline.chatFormat.template.source);
  assert.throws(() => hosted.generate('x', { temperature: -1 }), OptionError);
});

test('chat prompts are what templates see of them, on either side', async () => {
  const template = new ChatTemplate(
    '{% for m in messages %}{{ m.content }}|{% endfor %}{{ tools | tojson }}{{ more }}',
  );
  const tools = [
    { type: 'function', size: new JsonNumber('1.0'), count: 3, nested: { list: [true, null, 2n ** 60n] } },
  ] as never;
  const prompt: Prompt = {
    template,
    messages: [{ role: 'user', content: 'Hello' }],
    tools,
    variables: { more: ['a', 0.5] },
  };
  const hear = async (model: Model): Promise<readonly number[]> =>
    (await model.complete(prompt, { maxTokens: 1 })).promptTokenIds;
  const ids = await hear(inline);
  assert.deepEqual(await hear(hosted), ids);
  assert.match(inline.tokenizer!.decode(ids), /"size": 1\.0/);
  const bad = { ...prompt, variables: { more: () => {} } };
  const errors = await Promise.all([inline, hosted].map((model) => model.complete(bad).catch((error: Error) => error)));
  assert.ok(errors[0] instanceof LanewiseError);
  assert.deepEqual([(errors[1] as Error).message, errors[1]!.constructor], [errors[0].message, errors[0].constructor]);
});

test('a step and a forward of a hosted model have the logits of an inline one', async () => {
  const [a, b] = await Promise.all([hosted, inline].map((model) => wholeForward(model, [559, 552, 263])));
  assert.deepEqual(a, b);
  const logits = async (model: Model): Promise<unknown> => {
    using sequence = model.sequence();
    await sequence.reserve(70);
    await model.step([{ sequence, tokens: [559, 552], wanted: false }]);
    const [first] = await model.step([{ sequence, tokens: [263], wanted: true }]);
    const bits = Float32Array.from(first!.logits);
    sequence.truncate(1);
    const [again] = await model.step([{ sequence, tokens: [552, 263], wanted: true }]);
    assert.equal(sequence.length, 3);
    assert.deepEqual(again!.logits, bits);
    return { bits, summary: first!.summary };
  };
  assert.deepEqual(await logits(hosted), await logits(inline));
  const released = hosted.sequence();
  released.dispose();
  await assert.rejects(hosted.step([{ sequence: released, tokens: [1], wanted: true }]), { code: 'Disposed' });
  await assert.rejects(hosted.step([{ sequence: inline.sequence(), tokens: [1], wanted: true }]), OptionError);
  await assert.rejects(hosted.step([{ sequence: hosted.sequence(), tokens: [-1], wanted: true }]), OptionError);
});

test('errors, aborts and timeouts are those of an inline model', async () => {
  const reason = new Error('my reason');
  for (const model of [hosted, inline]) {
    const controller = new AbortController();
    const events: string[] = [];
    const run = async (): Promise<void> => {
      for await (const { type } of model.generate('Once', {
        maxTokens: -1,
        ignoreEos: true,
        signal: controller.signal,
      })) {
        events.push(type);
        if (type === 'token') controller.abort(reason);
      }
    };
    await assert.rejects(run(), (error) => error === reason);
    assert.equal(events.at(-1), 'done');
    await assert.rejects(model.complete('a'.repeat(3000)), { code: 'ContextLengthExceeded', contextLength: 512 });
    const late = await model.complete('Once', { maxTokens: -1, ignoreEos: true, timeoutMs: 1, temperature: 0 });
    assert.ok(['timeout', 'contextLength'].includes(late.finishReason));
    using conversation = model.conversation();
    const [one, two] = [conversation.generate('One day', greedy), conversation.generate('Two', greedy)];
    const ended = one.result;
    await assert.rejects(two.result, { code: 'Busy' });
    assert.equal((await ended).tokenIds.length, 24);
  }
});

test('leaving a loop ends its request', async () => {
  for await (const { type } of hosted.generate('Once', { maxTokens: -1, ignoreEos: true })) if (type === 'token') break;
  const { running, waiting, pages } = hosted.stats();
  assert.deepEqual([running, waiting, pages.used], [0, 0, 0]);
});

test('functions in options need an inline model', async () => {
  const constraint = { allowed() {}, accept() {} };
  const options = { ...greedy, constraint } as object;
  const outcome = await Promise.resolve()
    .then(() => hosted.complete('Once', options))
    .catch((error: Error) => error);
  assert.ok(outcome instanceof OptionError);
  await assert.rejects(load(undefined, { inline: 'yes' as never }), OptionError);
});

/** How often a timer of 2 ms has its turn while something is done, and the longest that it waits, as Node sees it. */
async function watched(work: () => Promise<unknown>): Promise<{ turns: number; longest: number; ms: number }> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let turns = 0;
  const timer = setInterval(() => turns++, 2);
  await sleep(20);
  delay.enable();
  turns = 0;
  const start = performance.now();
  await work();
  const ms = performance.now() - start;
  const found = turns;
  await sleep(20);
  delay.disable();
  clearInterval(timer);
  return { turns: found, longest: delay.max / 1e6, ms };
}

test("the caller's event loop turns while a long prompt is computed", async (t) => {
  // The slowest backend: one forward takes longer than the loop may stand still.
  const slow = { backend: 'reference', quantize: 'none' } as const;
  const models = await Promise.all([load(undefined, slow), load(undefined, { ...slow, inline: true })]);
  t.after(() => Promise.all(models.map((model) => model.dispose())));
  const tokenIds = Array.from({ length: 64 }, (_, i) => i + 1);
  const [free, blocked] = [await watched(() => read(models[0])), await watched(() => read(models[1]))];
  function read(model: Model): Promise<unknown> {
    return model.complete({ tokenIds }, { maxTokens: 1 });
  }
  t.diagnostic(JSON.stringify({ free, blocked }));
  assert.ok(blocked.turns < blocked.ms / 100, `inline, ${blocked.turns} turns in ${blocked.ms} ms`);
  assert.ok(free.turns > 20 && free.turns > 4 * blocked.turns, `${free.turns} and ${blocked.turns} turns`);
  assert.ok(free.longest < free.ms / 2, `${free.longest} of ${free.ms} ms without a turn`);
});

interface Doomed {
  readonly model: Promise<Model>;
  /** Ends the thread of the engine, as an accident would. */
  kill(): Promise<void>;
  readonly starts: () => number;
}

/** A hosted model whose thread the test can end. */
function doomed(
  t: TestContext,
  start = startEngineThread,
  source = golden('llama-gqa-f16'),
  options: LoadOptions = { threads: 2 },
): Doomed {
  const threads: EngineThread[] = [];
  const remember = (): EngineThread => {
    const thread = start();
    threads.push(thread);
    return thread;
  };
  const model = hostedEngine({ start: remember, source, name: 'the model' }, options).then(
    (engine: Engine) => new Model(engine),
  );
  t.after(async () => (await model.catch(() => undefined))?.dispose());
  return { model, kill: () => threads.at(-1)!.terminate(), starts: () => threads.length };
}

const lost = (error: unknown): boolean => error instanceof BackendError && error.code === 'EngineLost';

test('an engine that is lost while it loads fails the load', async (t) => {
  const dying = (): EngineThread => {
    const thread = startEngineThread();
    const post: EngineThread['post'] = (message, transfer) => {
      thread.post(message, transfer);
      if (message.kind === 'call' && message.method === 'load') void thread.terminate();
    };
    return { ...thread, post };
  };
  await assert.rejects(doomed(t, dying).model, lost);
});

test('files that have changed are not taken for those of the lost engine', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-hosted-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  cpSync(golden('llama-gqa-f16'), folder, { recursive: true });
  const { model: loading, kill } = doomed(t, startEngineThread, folder);
  const model = await loading;
  rmSync(folder, { recursive: true });
  cpSync(golden('qwen3'), folder, { recursive: true });
  await kill();
  await assert.rejects(model.complete({ tokenIds: [5] }, greedy), { code: 'FileChanged' });
});

test('an engine that is lost in prefill or idle fails what is in flight, and the next request works', async (t) => {
  const { model: loading, kill, starts } = doomed(t);
  const model = await loading;
  const prompt = { tokenIds: Array.from({ length: 100 }, (_, i) => i + 3) };
  const expected = (await model.complete(prompt, greedy)).tokenIds;

  const prefill = model.complete(prompt, greedy);
  const beside = model.generateBatch([prompt, prompt], greedy);
  void kill();
  await assert.rejects(prefill, lost);
  assert.ok((await beside).every(({ finishReason, error }) => finishReason === 'error' && lost(error)));
  assert.deepEqual((await model.complete(prompt, greedy)).tokenIds, expected);

  await kill();
  assert.deepEqual((await model.complete(prompt, greedy)).tokenIds, expected);
  assert.equal(starts(), 3);

  // A sequence is lost with its engine, a conversation goes on.
  using sequence = model.sequence();
  await model.step([{ sequence, tokens: [5], wanted: false }]);
  using conversation = model.conversation();
  await conversation.generate(prompt, greedy).result;
  await kill();
  await assert.rejects(model.step([{ sequence, tokens: [5], wanted: true }]), lost);
  assert.deepEqual((await conversation.generate(prompt, greedy).result).tokenIds, expected);
});

test('an engine that is lost while it decodes fails the request, and the next one works', async (t) => {
  // Slow: the text has not ended before the thread has.
  const { model: loading, kill } = doomed(t, startEngineThread, embeddedModel, { backend: 'reference' });
  const model = await loading;
  const { tokenIds } = await model.complete('Once', { ...greedy, maxTokens: 3 });
  const told: GenerateEvent[] = [];
  const decode = async (): Promise<void> => {
    for await (const event of model.generate('Once', { ...greedy, maxTokens: -1, ignoreEos: true })) {
      told.push(event);
      if (told.length === 3) void kill();
    }
  };
  await assert.rejects(decode, lost);
  assert.ok(told.length >= 3 && told.every(({ type }) => type !== 'done'));
  assert.deepEqual((await model.complete('Once', { ...greedy, maxTokens: 3 })).tokenIds, tokenIds);
});

test('an engine without memory for what it is asked says so, and goes on', async () => {
  using sequence = hosted.sequence();
  await assert.rejects(
    sequence.reserve(2 ** 40),
    (error) => error instanceof OutOfMemoryError && error.asked > 2 ** 40,
  );
  await hosted.step([{ sequence, tokens: [5], wanted: false }]);
});

test('a hosted encoder has the embeddings and errors of an inline one', async (t) => {
  const folder = fileURLToPath(new URL('../golden/encoders/modernbert', import.meta.url));
  const [far, near] = await Promise.all([loadEncoder(folder), loadEncoder(folder, { inline: true })]);
  t.after(() => Promise.all([far.dispose(), near.dispose()]));
  const texts = ['A cat sat on the mat.', 'Cats like mats.', { tokenIds: [5, 6, 7] }];
  const [a, b] = await Promise.all([far.embed(texts), near.embed(texts)]);
  assert.deepEqual(a, b);
  assert.equal(JSON.stringify(a), JSON.stringify(b));
  for (const key of ['description', 'contextLength', 'prompts', 'similarity', 'threads'] as const)
    assert.deepEqual(far[key], near[key], key);
  assert.deepEqual(far.tokenizer!.encode('Cats'), near.tokenizer!.encode('Cats'));
  assert.equal(far.memory().weights, near.memory().weights);
  await assert.rejects(far.embed([1 as never]), OptionError);
  const reason = new Error('my reason');
  await assert.rejects(far.embed(texts, { signal: AbortSignal.abort(reason) }), (error) => error === reason);
  await assert.rejects(loadEncoder(golden('llama-gqa-f16')), { code: 'NotAnEncoder' });
  await assert.rejects(load(folder), { code: 'NotADecoder' });
  await far.dispose();
  await assert.rejects(far.embed(texts), { code: 'Disposed' });
});

test('a load tells its progress and warnings, and ends when it is aborted', async () => {
  const steps: [number, number][] = [];
  const model = await load(undefined, { onProgress: (...step) => steps.push(step) });
  const [done, total] = steps.at(-1)!;
  assert.ok(done === total && total > 1e6);
  await model.dispose();
  const reason = new Error('my reason');
  await assert.rejects(load(undefined, { signal: AbortSignal.abort(reason) }), (error) => error === reason);
  const controller = new AbortController();
  const loading = load(undefined, { signal: controller.signal });
  setTimeout(() => controller.abort(reason), 20);
  await assert.rejects(loading, (error) => error === reason);
  await assert.rejects(load('/nowhere/at/all.gguf'), { code: 'NoModel' });
});

test('the log of a hosted engine comes to its caller', async () => {
  let text = '';
  configureLogging('debug', (lines) => {
    text += lines;
  });
  const model = await load(golden('llama-gqa-f16'));
  await model.complete({ tokenIds: [5, 6] }, { maxTokens: 3, ignoreEos: true });
  await model.dispose();
  configureLogging(undefined, () => {});
  assert.match(text, /\[perf\] generator\.prefill tokens=2/);
  assert.equal(text.match(/generator\.decode_step/g)?.length, 2);
  assert.match(text, /model\.forward embedding=/);
});

test('two hosted models at once', async (t) => {
  const paths = [golden('llama-gqa-f16'), golden('qwen3')];
  const models = await Promise.all(paths.map((path) => load(path)));
  t.after(() => Promise.all(models.map((model) => model.dispose())));
  const alone = await Promise.all(paths.map((path) => load(path, { inline: true })));
  const prompt = { tokenIds: [5, 6, 7] };
  const together = await Promise.all(models.map((model) => model.complete(prompt, greedy)));
  for (const [i, model] of alone.entries()) {
    assert.deepEqual(together[i]!.tokenIds, (await model.complete(prompt, greedy)).tokenIds);
    await model.dispose();
  }
});

test('disposal ends requests, may be asked for twice, and everything else is refused afterwards', async () => {
  const model = await load(golden('llama-gqa-f16'));
  const running = model.complete({ tokenIds: [5] }, { maxTokens: -1, ignoreEos: true });
  const failed = assert.rejects(running, { code: 'Disposed' });
  await Promise.all([model.dispose(), model.dispose()]);
  await failed;
  assert.throws(() => model.generate('x'), { code: 'Disposed' });
  assert.throws(() => model.forward([1]), { code: 'Disposed' });
});

test('a program ends by itself with a hosted model that nobody disposed, and not before its answer', () => {
  const program = `
    import { load } from ${JSON.stringify(new URL('../../src/node.ts', import.meta.url).href)};
    const model = await load(${JSON.stringify(golden('llama-gqa-f16'))});
    const { tokenIds } = await model.complete({ tokenIds: [5, 6] }, { temperature: 0, maxTokens: 5, ignoreEos: true });
    console.log(tokenIds.length);
  `;
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.deepEqual([stdout, status], ['5\n', 0]);
});

test('where no thread may start, the engine runs inline and says so', () => {
  const program = `
    import { load } from ${JSON.stringify(new URL('../../src/node.ts', import.meta.url).href)};
    const warnings = [];
    const model = await load(${JSON.stringify(embeddedModel)}, { onWarning: (text) => warnings.push(text) });
    console.log(JSON.stringify([model.threads, warnings]));
    await model.dispose();
  `;
  const flags = ['--permission', '--allow-fs-read=*', '--input-type=module'];
  const out = execFileSync(process.execPath, [...flags, '-e', program], { encoding: 'utf8' });
  const [threads, warnings] = JSON.parse(out) as [number, string[]];
  assert.equal(threads, 1);
  assert.match(warnings[0]!, /the engine runs in the calling thread: .*permission/i);
});
