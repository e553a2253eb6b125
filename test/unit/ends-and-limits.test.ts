/** Ends of a text: the caller's end tokens, stop strings in hidden tokens, aborts, timeouts, a full context. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  type GenerateEvent,
  type GenerateOptions,
  type GenerateResult,
  load,
  type Message,
  OptionError,
} from '../../src/node.ts';
import { Random } from '../../src/sampling/random.ts';
import { ShownText } from '../../src/schedule/shown-text.ts';

const llama = fileURLToPath(new URL('../golden/models/llama-gqa-f16', import.meta.url));
const greedy = { temperature: 0, maxTokens: 12 } as const;

async function outcome(
  events: AsyncIterable<GenerateEvent>,
): Promise<{ done: GenerateResult | undefined; error: unknown; text: string }> {
  let done: GenerateResult | undefined;
  let text = '';
  try {
    for await (const event of events) {
      if (event.type === 'token' || event.type === 'text') text += event.text;
      if (event.type === 'done') done = event;
    }
    return { done, error: undefined, text };
  } catch (error) {
    return { done, error, text };
  }
}

test('stopTokenIds end a text, also where the ends of the model do not', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const { done: plain } = await outcome(model.generate('Once upon a time', greedy));
  const id = plain!.tokenIds[4]!;
  for (const ignoreEos of [false, true]) {
    const { done } = await outcome(model.generate('Once upon a time', { ...greedy, stopTokenIds: [id], ignoreEos }));
    assert.deepEqual([done!.finishReason, done!.stoppedBy], ['stop', id]);
    assert.deepEqual(done!.tokenIds, plain!.tokenIds.slice(0, plain!.tokenIds.indexOf(id)));
  }
  for (const wrong of [[-1], [4096], [1.5], ['5'], 5, new Array(1025).fill(1)])
    assert.throws(() => model.generate('x', { stopTokenIds: wrong as number[] }), OptionError);
});

test('a stop string is found in a token that the text does not show', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const { tokenizer, eosTokenIds } = model;
  const hidden = tokenizer!.specialIds.find((id) => !eosTokenIds.has(id) && tokenizer!.token(id)!.startsWith('<|'))!;
  const spelled = tokenizer!.token(hidden)!;
  const options = { ...greedy, maxTokens: 6, logitBias: { [hidden]: 100 } };
  const { done } = await outcome(model.generate('Once', { ...options, stop: spelled }));
  assert.deepEqual([done!.finishReason, done!.stoppedBy, done!.text], ['stop', spelled, '']);
  assert.equal(done!.tokenIds.length, 1);
});

test('the text is that of all tokens except hidden ones, up to the first stop string', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const tokenizer = model.tokenizer!;
  const words = tokenizer.encode('Once upon a time there was a café with 😀 and a naïve owl.', { addSpecial: false });
  const random = new Random(5);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random.uniform() * from.length)]!;
  for (let turn = 0; turn < 400; turn++) {
    // Hidden tokens stand between whole words: within a character they would break it.
    const ids = Array.from({ length: 12 }, () =>
      random.uniform() < 0.25 ? pick(tokenizer.specialIds) : pick(words),
    ).filter((id) => /^[\x20-\x7e]*$/.test(tokenizer.decode([id])));
    const full = tokenizer.decode(ids);
    const at = Math.floor(random.uniform() * full.length);
    const stop = full.slice(at, at + 1 + Math.floor(random.uniform() * 8)) || 'zzz';
    const shown = new ShownText(tokenizer, [], { stop: [stop], hideSpecial: true });
    let text = '';
    let stopped = false;
    for (const id of ids) {
      const piece = shown.push(id);
      text += piece.text;
      stopped = piece.stop !== undefined;
      if (stopped) break;
    }
    if (!stopped) text += shown.end().text;
    // Which characters of the full text are shown.
    const visible = ids.flatMap((id) =>
      [...tokenizer.decode([id])].map((c) => ({ c, shown: !tokenizer.specialIds.includes(id) })),
    );
    assert.equal(visible.map(({ c }) => c).join(''), full);
    const plain = visible
      .filter((one) => one.shown)
      .map(({ c }) => c)
      .join('');
    const inFull = full.indexOf(stop);
    const inPlain = plain.indexOf(stop);
    const cuts = [plain.length];
    // The stop string that is complete first counts.
    if (inFull >= 0) cuts.push(visible.slice(0, inFull).filter((one) => one.shown).length);
    if (inPlain >= 0) cuts.push(inPlain);
    assert.equal(text, plain.slice(0, Math.min(...cuts)), JSON.stringify({ full, stop }));
  }
});

test('an aborted text ends with a done event, then throws as its option says', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const { done: whole } = await outcome(model.generate('Once upon a time', { ...greedy, maxTokens: 40 }));
  for (const throwOnAbort of [undefined, true, false]) {
    const controller = new AbortController();
    const options: GenerateOptions = { ...greedy, maxTokens: 40, signal: controller.signal, stop: '~never~' };
    if (throwOnAbort !== undefined) options.throwOnAbort = throwOnAbort;
    async function* aborting(): AsyncGenerator<GenerateEvent> {
      let tokens = 0;
      for await (const event of model.generate('Once upon a time', options)) {
        yield event;
        if (event.type === 'token' && ++tokens === 5) controller.abort(new Error('enough'));
      }
    }
    const { done, error, text } = await outcome(aborting());
    assert.equal(done!.finishReason, 'aborted');
    assert.deepEqual(done!.tokenIds, whole!.tokenIds.slice(0, done!.tokenIds.length));
    assert.deepEqual([done!.text, done!.usage.completionTokens], [text, done!.tokenIds.length]);
    assert.ok(text !== '' && whole!.text.startsWith(text));
    assert.ok(done!.timings.prefillMs > 0 && done!.timings.steps.length >= 5);
    assert.equal((error as Error | undefined)?.message, throwOnAbort === false ? undefined : 'enough');
  }
});

test('a timeout ends with the text so far, and throws where asked', async () => {
  await using model = await load(undefined, { inline: true, threads: 1 });
  for (const throwOnTimeout of [false, true]) {
    const options = { ...greedy, maxTokens: 400, timeoutMs: 1e-3, throwOnTimeout };
    const { done, error } = await outcome(model.generate('Once upon a time', options));
    assert.deepEqual([done!.finishReason, done!.tokenIds.length], ['timeout', 1]);
    assert.equal((error as { code?: string } | undefined)?.code, throwOnTimeout ? 'Timeout' : undefined);
  }
});

test('maxTokens and a full context are told apart; options are refused before the first event', async () => {
  await using model = await load(undefined, { inline: true, threads: 1, contextLength: 20 });
  const options = { ...greedy, ignoreEos: true };
  const reason = async (maxTokens: number): Promise<string> =>
    (await outcome(model.generate('Once upon a time', { ...options, maxTokens }))).done!.finishReason;
  assert.equal(await reason(3), 'length');
  assert.equal(await reason(300), 'contextLength');
  assert.equal(await reason(0), 'length');
  assert.throws(() => model.generate('x', { topP: 7 }), OptionError);
  assert.throws(() => model.generate(5 as never), OptionError);
  assert.throws(() => model.conversation().generate('x', { topP: 7 }), OptionError);
});

test('rows that a forward cannot take are refused by name, and the model goes on', async () => {
  await using model = await load(llama, { inline: true, threads: 1 });
  await using other = await load(llama, { inline: true, threads: 1 });
  const sequence = model.sequence();
  const one = { sequence, tokens: [3], wanted: true };
  const wrong = [
    [],
    [{ ...one, tokens: [] }],
    [one, one],
    [{ ...one, sequence: other.sequence() }],
    [{ ...one, tokens: [10 ** 6] }],
    [{ ...one, tokens: new Array(model.maxRows + 1).fill(3) }],
    [{ ...one, tokens: new Array(model.maxSequences + 1).fill(3), wanted: 'all' as const }],
    Array.from({ length: 300 }, () => ({ sequence: model.sequence(), tokens: [], wanted: false })),
  ];
  for (const parts of wrong) await assert.rejects(model.step(parts), OptionError);
  assert.equal((await model.step([one])).length, 1);
  await sequence.reserve(64 * 10);
  sequence.dispose();
});

const template =
  "{{ bos_token }}{% for m in messages %}{{ m.role[0] + ':' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}";

async function chatModel(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-shift-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(llama, folder, { recursive: true });
  await writeFile(join(folder, 'chat_template.jinja'), template);
  return folder;
}

test('contextShift leaves out whole turns from the oldest on, keeps the system message, and stays put', async (t) => {
  await using model = await load(await chatModel(t), { inline: true, threads: 1 });
  using conversation = model.conversation();
  const options = { temperature: 0, maxTokens: 4, ignoreEos: true, contextShift: true, seed: 1 };
  const messages: Message[] = [{ role: 'system', content: 'be brief' }];
  const dropped: number[] = [];
  let cached = 0;
  for (let turn = 0; turn < 24; turn++) {
    messages.push({ role: 'user', content: `word ${turn}` });
    const { done } = await outcome(conversation.generate({ messages }, options));
    const { droppedMessages = 0, promptTokens, cachedTokens = 0 } = done!.usage;
    dropped.push(droppedMessages);
    assert.equal(droppedMessages % 2, 0, 'whole turns');
    assert.ok(promptTokens + 4 <= model.contextLength);
    const kept = [messages[0]!, ...messages.slice(1 + droppedMessages)];
    assert.deepEqual(done!.promptTokenIds, model.encode({ messages: kept }));
    const fresh = await outcome(model.generate({ messages: kept }, { ...options, contextShift: false }));
    assert.deepEqual(done!.tokenIds, fresh.done!.tokenIds);
    if (turn > 0 && droppedMessages === dropped.at(-2) && cachedTokens > promptTokens / 3) cached++;
    messages.push({ role: 'assistant', content: 'yes' });
  }
  assert.ok(dropped.at(-1)! > 0, 'the talk was long enough');
  assert.ok(new Set(dropped).size < 12, 'several turns share what was computed');
  assert.ok(cached > 8);
  const { error } = await outcome(model.generate({ messages }, { ...options, contextShift: false }));
  assert.equal((error as { code: string }).code, 'ContextLengthExceeded');
  const one = await outcome(model.generate({ messages: [{ role: 'user', content: 'word '.repeat(500) }] }, options));
  assert.equal((one.error as { code: string }).code, 'ContextLengthExceeded');
  const text = await outcome(model.generate('x', options));
  assert.ok(text.error instanceof OptionError && text.error.option === 'contextShift');
});
