/** What generation tells: which text belongs to which token, what a batch says of its prompts. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { load, type Model, type Prompt } from '../../src/node.ts';
import type { GenerateEvent } from '../../src/schedule/events.ts';

const llama = fileURLToPath(new URL('../golden/models/llama-gqa-f16', import.meta.url));
const greedy = { temperature: 0, maxTokens: 12, ignoreEos: true } as const;

async function events(model: Model, prompt: Prompt, options: object): Promise<GenerateEvent[]> {
  const all: GenerateEvent[] = [];
  for await (const event of model.generate(prompt, { ...greedy, ...options })) all.push(event);
  return all;
}

test('text held back for a stop string follows the last token, which is reported once', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const [plain] = (await events(model, 'Once upon a time', {})).slice(-1);
  assert.ok(plain?.type === 'done');
  const stop = `${plain.text.slice(-2)}${'~'.repeat(9)}`;
  const all = await events(model, 'Once upon a time', { stop });
  const ids = all.flatMap((event) => (event.type === 'token' ? [event.id] : []));
  assert.deepEqual(ids, plain.tokenIds);
  const [rest, done] = all.slice(-2);
  assert.deepEqual(rest, { type: 'text', text: plain.text.slice(-2) });
  assert.ok(done?.type === 'done' && done.text === plain.text);
  const streamed = all.map((event) => (event.type === 'token' || event.type === 'text' ? event.text : '')).join('');
  assert.equal(streamed, plain.text);
});

test('a prompt and its text joined are what all tokens decode to, with the space between them', async () => {
  // Its decoder leaves out one space in front, as those of SentencePiece models do.
  await using model = await load(llama, { inline: true, threads: 1 });
  const tokenizer = model.tokenizer!;
  let withSpace = 0;
  for (let seed = 0; seed < 60; seed++) {
    const tokenIds = tokenizer.encode('a b');
    const done = (await events(model, { tokenIds }, { maxTokens: 2, temperature: 2, seed })).at(-1);
    assert.ok(done?.type === 'done');
    assert.equal(tokenizer.decode(tokenIds) + done.text, tokenizer.decode([...tokenIds, ...done.tokenIds]));
    if (done.text.startsWith(' ')) withSpace++;
  }
  assert.ok(withSpace > 0, 'no text began with a space');
});

test('timings of a batch count every chunk of a prompt', async (t) => {
  await using model = await load(undefined, { inline: true, threads: 1, contextLength: 400 });
  const tokenIds = Array.from({ length: 2 * model.maxRows + 5 }, (_, i) => 3 + (i % 50));
  // A clock that ticks when it is read: a forward takes the same number of ticks each time.
  let ticks = 0;
  t.mock.method(performance, 'now', () => ++ticks);
  const alone = (await events(model, { tokenIds }, { maxTokens: 2 })).at(-1);
  assert.ok(alone?.type === 'done');
  // None of which the cache has.
  const others = tokenIds.map((id) => id + 50);
  const [batch] = await model.generateBatch([{ tokenIds: others }], { ...greedy, maxTokens: 2 });
  assert.equal(batch!.timings.prefillMs, alone.timings.prefillMs);
  assert.equal(batch!.timings.steps.length, 2);
});

test('a text that no context could hold is refused before it is tokenized', async (t) => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const encode = t.mock.method(model.tokenizer!, 'encode');
  const long = 'a'.repeat(32 * 2 ** 20);
  await assert.rejects(events(model, long, {}), {
    code: 'ContextLengthExceeded',
    message: /^the prompt has 33554432 characters, the context holds \d+ tokens of at most \d+; shorten it/,
  });
  assert.equal(encode.mock.callCount(), 0);
  assert.throws(() => model.encode({ text: long, parseSpecial: true }), { code: 'ContextLengthExceeded' });
});
