import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ChatTemplate, load } from '../../src/node.ts';
import type { GenerateEvent, GenerateResult } from '../../src/schedule/events.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const options = { temperature: 0, maxTokens: 8, ignoreEos: true, logprobs: 1 };

interface Turn {
  readonly logprobs: readonly number[];
  readonly computed: number;
  readonly result: GenerateResult;
}

async function run(events: AsyncGenerator<GenerateEvent, void, undefined>): Promise<Turn> {
  const logprobs: number[] = [];
  for await (const event of events) {
    if (event.type === 'token' && event.logprob !== 0) logprobs.push(event.logprob);
    if (event.type === 'done')
      return { logprobs, computed: event.usage.promptTokens - (event.usage.cachedTokens ?? 0), result: event };
  }
  throw new Error('no end');
}

const ids = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => 3 + ((i * 7 + seed) % 50));

for (const name of ['llama-gqa-f16', 'mistral-window', 'phi3-longrope']) {
  test(`${name}: a turn of a conversation has the bits of a fresh run and computes only what is new`, async () => {
    await using model = await load(golden(name), { inline: true });
    using conversation = model.conversation();
    let tokenIds = ids(9, 1);
    const turns: Turn[] = [];
    for (const added of [ids(6, 2), ids(1, 3), ids(5, 4)]) {
      const turn = await run(conversation.generate({ tokenIds }, options));
      const fresh = await run(model.generate({ tokenIds }, options));
      assert.deepEqual(turn.result.tokenIds, fresh.result.tokenIds);
      assert.deepEqual(turn.logprobs, fresh.logprobs);
      turns.push(turn);
      tokenIds = [...tokenIds, ...turn.result.tokenIds, ...added];
    }
    // The last token of an answer has been chosen and not been computed.
    assert.deepEqual(
      turns.map(({ computed }) => computed),
      [9, 7, 2],
    );
    const edited = [...tokenIds.slice(0, 5), 60, ...tokenIds.slice(6, 12)];
    const back = await run(conversation.generate({ tokenIds: edited }, options));
    assert.equal(back.result.usage.cachedTokens, 5);
    assert.deepEqual(back.logprobs, (await run(model.generate({ tokenIds: edited }, options))).logprobs);
  });
}

test('a turn that was stopped midway leaves a conversation that goes on', async () => {
  await using model = await load(golden('llama-gqa-f16'), { inline: true });
  using conversation = model.conversation();
  const tokenIds = ids(12, 1);
  for await (const event of conversation.generate({ tokenIds }, options)) if (event.type === 'token') break;
  const again = await run(conversation.generate({ tokenIds }, options));
  assert.equal(again.result.usage.cachedTokens, 11);
  assert.deepEqual(again.logprobs, (await run(model.generate({ tokenIds }, options))).logprobs);
});

const template =
  "{{ bos_token }}{% for m in messages %}{{ '<|u|>' + m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}";

async function withTemplate(t: TestContext, files: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-chat-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(golden('llama-gqa-f16'), folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return folder;
}

test('a second turn beside the first is refused, and the first one goes on with the same bits', async () => {
  await using model = await load(golden('llama-gqa-f16'), { inline: true });
  using conversation = model.conversation();
  const tokenIds = ids(9, 1);
  const alone = await run(model.generate({ tokenIds }, options));
  const events = conversation.generate({ tokenIds }, options);
  await events.next();
  await assert.rejects(run(conversation.generate({ tokenIds: ids(3, 2) }, options)), { code: 'Busy' });
  const first = await run(events);
  assert.deepEqual(first.result.tokenIds, alone.result.tokenIds);
  // Leaving the loop ends the turn.
  for await (const event of conversation.generate({ tokenIds }, options)) if (event.type === 'token') break;
  assert.deepEqual((await run(conversation.generate({ tokenIds }, options))).result.tokenIds, alone.result.tokenIds);
});

test('a turn whose conversation is disposed ends with an error; the conversation begins anew', async () => {
  await using model = await load(golden('llama-gqa-f16'), { inline: true });
  using conversation = model.conversation();
  const tokenIds = ids(9, 1);
  const alone = await run(model.generate({ tokenIds }, options));
  const events = conversation.generate({ tokenIds }, options);
  for (let n = 0; n < 3; n++) await events.next();
  conversation.dispose();
  const next = await run(conversation.generate({ tokenIds }, options));
  await assert.rejects(run(events), { code: 'Disposed' });
  assert.deepEqual(next.result.tokenIds, alone.result.tokenIds);
  assert.deepEqual(next.logprobs, alone.logprobs);
  assert.equal(next.result.usage.cachedTokens, 8);
});

test('messages become tokens by the template; user text never becomes a control token', async (t) => {
  await using model = await load(await withTemplate(t, { 'chat_template.jinja': template }), {
    inline: true,
  });
  const { bosToken, eosToken } = model.chatFormat;
  assert.ok(bosToken && eosToken);
  const [bos, eos] = [model.tokenizer!.id(bosToken)!, model.tokenizer!.id(eosToken)!];
  const special = new Set(model.tokenizer!.specialIds);
  const found = (text: string): number[] =>
    model.encode({ messages: [{ role: 'user', content: text }] }).filter((id) => special.has(id));
  assert.deepEqual(found('hello'), [bos, eos]);
  assert.deepEqual(found(`a${eosToken}${bosToken}b`), [bos, eos]);
  const other = new ChatTemplate('{{ messages[0].content }}');
  assert.deepEqual(
    model.encode({ messages: [{ role: 'user', content: bosToken }], template: other }).filter((id) => special.has(id)),
    [],
  );
  assert.ok(model.eosTokenIds.has(eos));
  assert.equal(
    (await run(model.generate({ messages: [{ role: 'user', content: 'hi' }] }, options))).result.tokenIds.length,
    8,
  );
});

test('templates are found where models keep them', async (t) => {
  const list = [
    { name: 'tool_use', template: 'no' },
    { name: 'default', template: 'yes' },
  ];
  const places: readonly (readonly [Record<string, string>, string])[] = [
    [{ 'tokenizer_config.json': JSON.stringify({ chat_template: 'a', bos_token: { content: '<b>' } }) }, 'a'],
    [{ 'tokenizer_config.json': JSON.stringify({ chat_template: list }) }, 'yes'],
    [{ 'chat_template.json': JSON.stringify({ chat_template: 'j' }), 'tokenizer_config.json': '{}' }, 'j'],
    [{ 'chat_template.jinja': 'first', 'tokenizer_config.json': JSON.stringify({ chat_template: 'a' }) }, 'first'],
  ];
  for (const [files, expected] of places) {
    await using model = await load(await withTemplate(t, files), { inline: true });
    assert.equal(model.chatFormat.template.source, expected);
  }
});

test('without a template, or with an invalid one, prompts work and chats are an error with the reason', async (t) => {
  const messages = [{ role: 'user', content: 'hi' }];
  {
    await using model = await load(golden('llama-gqa-f16'), { inline: true });
    assert.throws(() => model.encode({ messages }), { code: 'NoChatTemplate' });
  }
  const warnings: string[] = [];
  const folder = await withTemplate(t, { 'chat_template.jinja': 'a\n{% if %}' });
  await using model = await load(folder, { inline: true, onWarning: (text) => warnings.push(text) });
  assert.match(warnings.join(), /line 2, column 7/);
  assert.throws(() => model.encode({ messages }), { code: 'InvalidTemplate', line: 2 });
  assert.ok(model.encode('hi').length > 0);
});
