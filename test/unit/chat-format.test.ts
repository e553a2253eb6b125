import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';
import type { Message, Tool } from '../../src/chat/messages.ts';
import { ChatTemplate } from '../../src/chat/template.ts';
import { openChatFormat, readChatFormat } from '../../src/engine/chat-files.ts';
import { LanewiseError } from '../../src/errors.ts';
import { memoryFolder } from '../../src/formats/bytes.ts';
import type { GgufMetadata } from '../../src/formats/gguf-types.ts';
import { loadTokenizer, type Tokenizer } from '../../src/index.ts';
import { type ChatFormat, renderChat, templateOf } from '../../src/prompts/chat.ts';

const messages: Message[] = [{ role: 'user', content: 'hi' }];
const tools: Tool[] = [{ type: 'function', function: { name: 'f' } }];
const folder = (files: Record<string, unknown>) =>
  memoryFolder(
    'model',
    new Map(
      Object.entries(files).map(([name, content]) => [
        name,
        new TextEncoder().encode(typeof content === 'string' ? content : JSON.stringify(content)),
      ]),
    ),
  );
const metadataOf = (values: Record<string, unknown>): GgufMetadata =>
  new Map(Object.entries(values).map(([key, value]) => [key, { value }])) as unknown as GgufMetadata;
const shown = (format: ChatFormat, tools?: Tool[], name?: string): string =>
  templateOf(format, name, tools).render(messages, { tools: tools ?? null }).text;

async function tokenizer(): Promise<Tokenizer> {
  const tokenizerJson = {
    model: { type: 'WordLevel', vocab: { '<s>': 0, '</s>': 1, a: 2 }, unk_token: '<s>' },
    added_tokens: [
      { id: 0, content: '<s>', special: true },
      { id: 1, content: '</s>', special: true },
    ],
  };
  return loadTokenizer({ tokenizerJson: JSON.stringify(tokenizerJson), name: 'model' });
}

test('a list of templates: tool_use where tools are given', async () => {
  const config = await readFile(
    new URL('../golden/chat/named-templates/tokenizer_config.json', import.meta.url),
    'utf8',
  );
  const format = await openChatFormat(folder({ 'tokenizer_config.json': config }));
  assert.equal(shown(format), 'D hi');
  assert.equal(shown(format, []), 'D hi');
  assert.equal(shown(format, tools), 'T 1 hi');
  assert.equal(shown(format, tools, 'default'), 'D hi');
  assert.throws(
    () => templateOf(format, 'rag', undefined),
    /chatTemplate must be one of the model's chat templates \(default, tool_use\), got "rag"/,
  );
});

test('one template serves with tools too, under the name default', async () => {
  const format = await openChatFormat(folder({ 'tokenizer_config.json': { chat_template: 'X' } }));
  assert.equal(format.named, undefined);
  assert.equal(shown(format, tools), 'X');
  assert.equal(shown(format, tools, 'default'), 'X');
  assert.throws(() => templateOf(format, 'tool_use', tools), /one of the model's chat templates \(default\)/);
});

test('files go before tokenizer_config.json, and that before chat_template.json', async () => {
  const files = {
    'tokenizer_config.json': {
      chat_template: [
        { name: 'default', template: 'config' },
        { name: 'rag', template: 'R' },
      ],
    },
    'chat_template.json': { chat_template: 'json' },
  };
  const shownBy = async (more: Record<string, unknown>, tools?: Tool[]): Promise<string> =>
    shown(await openChatFormat(folder({ ...files, ...more })), tools);
  assert.equal(await shownBy({}), 'config');
  assert.equal(await shownBy({ 'tokenizer_config.json': {} }), 'json');
  assert.equal(await shownBy({ 'chat_template.jinja': 'file' }), 'file');
  const additional = {
    'additional_chat_templates/tool_use.jinja': 'tools',
    'additional_chat_templates/other.jinja': 'O',
  };
  assert.equal(await shownBy(additional), 'config');
  assert.equal(await shownBy(additional, tools), 'tools');
  const format = await openChatFormat(folder({ ...files, ...additional }));
  assert.deepEqual([...format.named!.keys()].sort(), ['default', 'other', 'rag', 'tool_use']);
  const fixed = { ...folder({ ...files, ...additional }), list: async () => [] };
  const blind = { ...fixed, name: 'url', open: (name: string) => folder({ ...files, ...additional }).open(name) };
  const inside = folder({ ...files, ...additional }).folder('additional_chat_templates');
  const unlisted = { ...blind, folder: () => ({ ...blind, open: (name: string) => inside.open(name) }) };
  assert.equal(shown(await openChatFormat(unlisted), tools), 'tools', 'where the place cannot list');
});

test('a template that is alone and has a name goes by that name too', async () => {
  const format = await openChatFormat(folder({ 'additional_chat_templates/rag.jinja': 'R' }));
  for (const name of [undefined, 'rag', 'default']) assert.equal(shown(format, undefined, name), 'R');
  assert.throws(() => templateOf(format, 'tool_use', tools), /one of the model's chat templates \(rag\)/);
});

test('GGUF files have further templates under their names', async () => {
  const metadata = metadataOf({
    'tokenizer.chat_template': 'D',
    'tokenizer.chat_template.tool_use': 'T',
    'tokenizer.chat_template.rag': 'R',
    'tokenizer.chat_templates': ['tool_use', 'rag'],
    'tokenizer.ggml.bos_token_id': 0,
    'tokenizer.ggml.eos_token_id': 1,
    'tokenizer.ggml.unknown_token_id': 2,
  });
  const { format, tokens } = await readChatFormat(folder({}), { metadata, files: ['x.gguf'] }, await tokenizer());
  assert.ok(!(format instanceof LanewiseError));
  assert.deepEqual([shown(format), shown(format, tools), shown(format, tools, 'rag')], ['D', 'T', 'R']);
  assert.deepEqual(tokens, { bosToken: '<s>', eosToken: '</s>', specialTokens: { unk_token: 'a' } });
});

test('without a template, the error names the file and the texts of tokens are known', async () => {
  const metadata = metadataOf({ 'tokenizer.ggml.bos_token_id': 0, 'tokenizer.ggml.eos_token_id': 1 });
  const gguf = await readChatFormat(folder({}), { metadata, files: ['x.gguf'] }, await tokenizer());
  assert.ok(gguf.format instanceof LanewiseError);
  assert.equal(gguf.format.code, 'NoChatTemplate');
  assert.match(gguf.format.message, /^model\/x\.gguf has no chat template, /);
  const config = { bos_token: '<bos>', eos_token: { content: '<eos>' }, pad_token: '<pad>' };
  const plain = await readChatFormat(folder({ 'tokenizer_config.json': config }), { files: [] }, undefined);
  assert.ok(plain.format instanceof LanewiseError);
  assert.match(plain.format.message, /^model has no chat template, /);
  assert.deepEqual(plain.tokens, { bosToken: '<bos>', eosToken: '<eos>', specialTokens: { pad_token: '<pad>' } });
  const ids = { 'config.json': { bos_token_id: 0, eos_token_id: [1] } };
  const bare = await readChatFormat(folder(ids), { files: [] }, await tokenizer());
  assert.equal(bare.tokens.bosToken, '<s>', 'config.json has the id, where no file of the tokenizer says more');
  const own = new ChatTemplate('{{ bos_token }}{{ messages[0].content }}{{ pad_token }}');
  const parts = renderChat(plain.tokens, own, { messages });
  assert.deepEqual(parts, [
    { text: '<bos>', parseSpecial: true },
    { text: 'hi', parseSpecial: false },
    { text: '<pad>', parseSpecial: true },
  ]);
});

test('an answer at the end is gone on with, unless it calls tools or says nothing', () => {
  const template = new ChatTemplate(
    '{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}',
  );
  const text = (last: Message, continueFinalMessage?: boolean): string =>
    renderChat({ bosToken: undefined, eosToken: undefined }, template, {
      messages: [...messages, last],
      ...(continueFinalMessage === undefined ? {} : { continueFinalMessage }),
    })
      .map(({ text }) => text)
      .join('');
  assert.equal(text({ role: 'assistant', content: 'Well' }), '<user>hi</><assistant>Well');
  assert.equal(text({ role: 'assistant', content: [{ type: 'text', text: 'Well' }] }), '<user>hi</><assistant>Well');
  assert.equal(text({ role: 'assistant', content: 'Well' }, false), '<user>hi</><assistant>Well</><assistant>');
  assert.equal(text({ role: 'user', content: 'Well' }), '<user>hi</><user>Well</><assistant>');
  assert.match(text({ role: 'assistant', content: '', tool_calls: [{ function: { name: 'f' } }] }), /<\/><assistant>$/);
  assert.match(text({ role: 'assistant', content: null }), /<\/><assistant>$/);
});
