/** Many prompts in shared forwards: the bits of each alone, results as they come, errors and aborts of one and of all. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { PAGE, type Results } from '../../src/backend/backend.ts';
import { Evaluator } from '../../src/evaluate/evaluator.ts';
import {
  type BatchPrompt,
  type GenerateOptions,
  type GenerateResult,
  LanewiseError,
  load,
  type Model,
  OptionError,
  OutOfMemoryError,
  type Prompt,
} from '../../src/node.ts';
import { Random } from '../../src/sampling/random.ts';

const llama = fileURLToPath(new URL('../golden/models/llama-gqa-f16', import.meta.url));
const longrope = fileURLToPath(new URL('../golden/models/phi3-longrope', import.meta.url));
const greedy = { temperature: 0, ignoreEos: true, maxTokens: 12 } as const;

async function alone(model: Model, prompt: Prompt, options: GenerateOptions): Promise<GenerateResult> {
  for await (const event of model.generate(prompt, options)) if (event.type === 'done') return event;
  throw new Error('no done event');
}

const ids = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => 3 + ((i * 7 + seed * 5) % 50));

/** What must be equal to the bit. */
const essence = ({ finishReason, tokenIds, text, seed }: GenerateResult): object => ({
  finishReason,
  tokenIds,
  text,
  seed,
});

for (const folder of [llama, longrope]) {
  test(`prompts of random lengths and options have the bits of each alone: ${folder.split('/').at(-1)}`, async () => {
    await using model = await load(folder, { inline: true, threads: 2 });
    const random = new Random(11);
    const pick = (most: number): number => Math.floor(random.uniform() * most);
    const prompts = Array.from({ length: 90 }, (_, i) => ({
      prompt: { tokenIds: ids(1 + pick(60), i) },
      options: {
        maxTokens: pick(20),
        temperature: pick(2),
        seed: i,
        ignoreEos: pick(2) === 0,
        speculate: pick(2) * 4,
        logprobs: 1,
      },
    }));
    const logprobs: number[][] = prompts.map(() => []);
    const results: GenerateResult[] = [];
    for await (const event of model.generateStream(prompts)) {
      if (event.type === 'token') logprobs[event.index]!.push(event.logprob);
      if (event.type === 'done') results[event.index] = event;
    }
    for (const [i, { prompt, options }] of prompts.entries()) {
      const own: number[] = [];
      for await (const event of model.generate(prompt, { ...options, speculate: 0 })) {
        if (event.type === 'token') own.push(event.logprob);
        if (event.type === 'done') assert.deepEqual(essence(results[i]!), essence(event), `prompt ${i}`);
      }
      assert.deepEqual(logprobs[i], own, `prompt ${i}`);
    }
  });
}

test('a short text is reported before a longer one that began earlier', async () => {
  await using model = await load(llama, { inline: true, threads: 1 });
  const prompts: BatchPrompt[] = [40, 3, 20, 0].map((maxTokens, i) => ({
    prompt: { tokenIds: ids(4, i) },
    options: { ...greedy, maxTokens },
  }));
  const ends: number[] = [];
  for await (const event of model.generateStream(prompts)) if (event.type === 'done') ends.push(event.index);
  assert.deepEqual(ends, [3, 1, 2, 0]);
});

test('an error of one prompt is its result, and the others go on', async () => {
  await using model = await load(llama, { inline: true, threads: 1 });
  const good = { tokenIds: ids(5, 1) };
  const prompts: BatchPrompt[] = [
    good,
    { tokenIds: new Array<number>(model.contextLength + 1).fill(5) },
    { tokenIds: [10 ** 6] },
    { messages: [{ role: 'user', content: 'hi' }] },
    { prompt: good, options: { topP: 7 } },
    { prompt: good, options: { logitBias: Object.fromEntries([]), maxTokens: 3 } },
    good,
  ];
  const results = await model.generateBatch(prompts, greedy);
  const expected = essence(await alone(model, good, { ...greedy, seed: 1 })) as GenerateResult;
  assert.deepEqual(
    results.map(({ error }) => error?.code),
    [undefined, 'ContextLengthExceeded', 'InvalidOption', 'NoChatTemplate', 'InvalidOption', undefined, undefined],
  );
  for (const { error, finishReason, tokenIds } of results.filter(({ error }) => error)) {
    assert.ok(error instanceof LanewiseError);
    assert.deepEqual([finishReason, tokenIds.length], ['error', 0]);
  }
  assert.deepEqual(results[0]!.tokenIds, expected.tokenIds);
  assert.deepEqual(results[6]!.tokenIds, expected.tokenIds);
  assert.equal(results[5]!.tokenIds.length, 3);
  await assert.rejects(model.generateBatch([good, 5 as never], greedy), {
    name: 'OptionError',
    message: /^prompts\[1\]: prompt must be/,
  });
  await assert.rejects(model.generateBatch([good], { topP: 7 }), OptionError);
});

test('logits without a candidate, or not finite, end one text', async (t) => {
  await using model = await load(llama, { inline: true, threads: 1 });
  const { vocab } = model.description.config;
  const { forward } = Evaluator.prototype;
  let forwards = 0;
  t.mock.method(Evaluator.prototype, 'forward', async function (this: Evaluator, ...args: Parameters<typeof forward>) {
    const evaluation = await forward.apply(this, args);
    if (++forwards !== 3) return evaluation;
    const broken = [Number.NaN, Number.NEGATIVE_INFINITY];
    const results: Results = {
      ...evaluation.results,
      output: (i) => (i < 2 ? new Float32Array(vocab).fill(broken[i]!) : evaluation.results.output(i)),
      summary: (i) => ({ ...evaluation.results.summary(i), ...(i < 2 && { largest: broken[i]! }) }),
    };
    return { ...evaluation, results };
  });
  const prompts = [1, 2, 3].map((seed) => ({ tokenIds: ids(5, seed) }));
  const results = await model.generateBatch(prompts, greedy);
  assert.deepEqual(
    results.map(({ error, tokenIds }) => [error?.code, tokenIds.length]),
    [
      ['NumericError', 2],
      ['NoCandidate', 2],
      [undefined, 12],
    ],
  );
  // What failed is computed anew, and what it computed is not kept.
  assert.equal(model.stats().pages.used, 0);
  const again = await model.generateBatch(prompts, greedy);
  assert.deepEqual(
    again.map(({ error, usage }) => [error, usage.cachedTokens]),
    [
      [undefined, 0],
      [undefined, 0],
      [undefined, 4],
    ],
  );
});

test('requests of one cacheKey share what is computed, and no others', async () => {
  await using model = await load(llama, { inline: true, threads: 1 });
  const tokenIds = ids(100, 1);
  const cached = async (options: GenerateOptions): Promise<number> =>
    (await model.complete({ tokenIds }, { ...greedy, maxTokens: 3, ...options })).usage.cachedTokens;
  assert.equal(await cached({ cacheKey: 'a' }), 0);
  assert.equal(await cached({ cacheKey: 'b' }), 0);
  assert.equal(await cached({}), 0);
  for (const cacheKey of ['a', 'b', undefined]) assert.equal(await cached({ cacheKey }), 99);
  for (const cacheKey of [7, 'x'.repeat(300), '\ud800'] as string[])
    assert.throws(() => model.generate({ tokenIds }, { cacheKey }), {
      code: 'InvalidOption',
      message: /^cacheKey must be/,
    });
});

test('the cache holds those that run at once, however many prompts there are', async () => {
  await using model = await load(llama, {
    inline: true,
    threads: 1,
    contextLength: PAGE,
    cacheTokens: 64 * PAGE,
  });
  assert.equal(model.maxSequences, 64);
  const prompts = Array.from({ length: 10 * model.maxSequences }, (_, i) => ({ tokenIds: ids(3, i) }));
  let most = 0;
  let ended = 0;
  for await (const event of model.generateStream(prompts, { ...greedy, maxTokens: 1 })) {
    most = Math.max(most, model.stats().pages.used);
    if (event.type === 'done') ended += event.tokenIds.length;
  }
  assert.equal(ended, prompts.length);
  assert.ok(most > 0 && most <= model.maxSequences, `${most} pages`);
  assert.equal(model.stats().pages.used, 0);
});

test('where memory is refused, prompts wait for others, to the same bits; one that needs it all fails alone', async (t) => {
  await using model = await load(llama, { inline: true, threads: 1 });
  const prompts = Array.from({ length: 12 }, (_, i) => ({ tokenIds: ids(PAGE - 8, i) }));
  const options = { ...greedy, maxTokens: 30 };
  const expected: object[] = [];
  for (const prompt of prompts) expected.push(essence(await alone(model, prompt, { ...options, seed: 1 })));
  const full = (): never => {
    throw new RangeError('WebAssembly.Memory.grow(): Unable to grow instance memory');
  };
  const refusal = t.mock.method(WebAssembly.Memory.prototype, 'grow', full);
  const others: ReturnType<Model['sequence']>[] = [];
  await assert.rejects(async () => {
    for (;;) {
      const other = model.sequence();
      await other.reserve(1);
      others.push(other);
    }
  }, OutOfMemoryError);
  // Room for five pages: each text needs two.
  for (const other of others.slice(0, 5)) other.dispose();
  const results = await model.generateBatch(prompts, { ...options, seed: 1 });
  assert.ok(refusal.mock.callCount() > 0);
  assert.deepEqual(results.map(essence), expected);
  for (const other of others.slice(5)) other.dispose();
  for (let i = 0; i < others.length - 1; i++) await model.sequence().reserve(1);
  const [one] = await model.generateBatch([prompts[0]!], options);
  assert.equal(one!.error?.code, 'OutOfMemory');
  assert.ok(one!.tokenIds.length > 0, 'what came before is kept');
});

test('one seed is drawn for each prompt and gives its text again; a given one is that of every prompt', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const options = { temperature: 1, maxTokens: 12 };
  const results = await model.generateBatch(['Once', 'Once', 'Once'], options);
  assert.equal(new Set(results.map(({ seed }) => seed)).size, 3);
  assert.equal(new Set(results.map(({ text }) => text)).size, 3);
  for (const { seed, text } of results) assert.equal((await alone(model, 'Once', { ...options, seed })).text, text);
  const same = await model.generateBatch(['Once', { prompt: 'Once', options: { seed: 4 } }], { ...options, seed: 3 });
  assert.deepEqual(
    same.map(({ seed }) => seed),
    [3, 4],
  );
});

test('an abort keeps finished texts, ends running ones with their text so far, and starts no others', async () => {
  await using model = await load(llama, { inline: true, threads: 1 });
  const controller = new AbortController();
  const count = model.maxSequences + 5;
  const prompts: BatchPrompt[] = Array.from({ length: count }, (_, i) => ({
    prompt: { tokenIds: ids(4, i) },
    options: { maxTokens: i === 0 ? 2 : 50 },
  }));
  const results: GenerateResult[] = [];
  const read = async (): Promise<void> => {
    const events = model.generateStream(prompts, { ...greedy, signal: controller.signal });
    for await (const event of events) {
      if (event.type === 'done') results[event.index] = event;
      if (event.type === 'token' && event.index === 1) controller.abort();
    }
  };
  await assert.rejects(read(), { name: 'AbortError' });
  assert.equal(results.filter(Boolean).length, count);
  assert.ok(results[1]!.finishReason === 'aborted' && results[1]!.tokenIds.length > 0);
  assert.ok(results.at(-1)!.finishReason === 'aborted' && results.at(-1)!.promptTokenIds.length === 0);
  const signal = AbortSignal.abort();
  const quiet = await model.generateBatch(prompts, { ...greedy, signal, throwOnAbort: false });
  assert.ok(quiet.every(({ finishReason }) => finishReason === 'aborted'));
  // One signal of its own ends one prompt.
  const own = await model.generateBatch(
    [{ prompt: { tokenIds: [5] }, options: { signal } }, { tokenIds: [6] }],
    greedy,
  );
  assert.deepEqual(
    own.map(({ finishReason }) => finishReason),
    ['aborted', 'length'],
  );
});

test('answers to one prompt share its keys and values, each with a seed of its own, and are those that it gives alone', async () => {
  await using model = await load(llama, { threads: 1, inline: true });
  const prompt = { tokenIds: ids(PAGE + 20, 3) };
  const options = { temperature: 1, maxTokens: 12, ignoreEos: true, n: 4, seed: 5 };
  const results = await model.generateBatch([prompt, { tokenIds: ids(3, 9) }], options);
  assert.equal(results.length, 8);
  assert.deepEqual(
    results.slice(0, 4).map(({ usage }) => usage.cachedTokens),
    [0, PAGE + 19, PAGE + 19, PAGE + 19],
  );
  assert.equal(results[0]!.seed, 5);
  assert.equal(new Set(results.slice(0, 4).map(({ seed }) => seed)).size, 4);
  for (const { seed, tokenIds } of results.slice(0, 4))
    assert.deepEqual((await alone(model, prompt, { ...options, n: 1, seed })).tokenIds, tokenIds);
  assert.throws(() => model.generate(prompt, { n: 2 }), OptionError);
});
