import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { parseJson } from '../../src/chat/json.ts';
import {
  type ContentPart,
  checkTextOnly,
  type Message,
  normaliseMessages,
  type TemplateTraits,
} from '../../src/chat/messages.ts';
import { ChatTemplate } from '../../src/chat/template.ts';
import { ProbedTraits } from '../../src/chat/traits.ts';
import { OptionError } from '../../src/errors.ts';

const render = (template: string, messages: Message[]): string => new ChatTemplate(template).render(messages).text;
const plain: TemplateTraits = { contentOf: () => 'either', arguments: () => 'object', reads: () => false };
/** Any JSON, as clients may send it. */
const call = (given: unknown): Message => ({
  role: 'assistant',
  tool_calls: [{ type: 'function', id: 'c1', function: { name: 'go', arguments: given as string } }],
});
const user = (content: unknown): Message => ({ role: 'user', content: content as string });
const texts = (...texts: string[]): ContentPart[] => texts.map((text) => ({ type: 'text', text }));

const folder = new URL('../golden/chat/messages/', import.meta.url);
for (const file of readdirSync(folder).filter((name) => name.endsWith('.jinja'))) {
  test(`${file} renders as transformers renders it`, () => {
    const read = (ending: string): string => readFileSync(new URL(file.replace('jinja', ending), folder), 'utf8');
    const { messages } = parseJson(read('json')) as { messages: Message[] };
    assert.equal(render(read('jinja'), messages), read('want').replace(/\n# .*$/s, ''));
  });
}

test('keys without a value are left out', () => {
  const given: Message = { role: 'assistant', content: null, tool_calls: null, name: undefined, refusal: null };
  assert.deepEqual(normaliseMessages([given], plain), [{ role: 'assistant' }]);
  assert.equal(render('{{ messages[0].content is defined }}{{ "tool_calls" in messages[0] }}', [given]), 'FalseFalse');
  assert.equal(given.content, null, 'the messages given stay as they are');
});

test('arguments as JSON text become an object, numbers with their spelling', () => {
  const shown = '{% for k, v in messages[0].tool_calls[0].function.arguments|items %}{{ k }}={{ v }};{% endfor %}';
  assert.equal(
    render(shown, [call('{"city": "Paris", "n": 1.0, "big": 12345678901234567890}')]),
    'city=Paris;n=1.0;big=12345678901234567890;',
  );
  assert.equal(render(shown, [call({ city: 'Paris' })]), 'city=Paris;');
  for (const nothing of ['', ' ', null, '{}', {}]) assert.equal(render(shown, [call(nothing)]), '', String(nothing));
  const flat = { role: 'assistant', tool_calls: [{ name: 'go', arguments: '{"a": 1}' }] };
  assert.deepEqual(normaliseMessages([flat], plain)[0]!.tool_calls, [{ name: 'go', arguments: { a: 1 } }]);
  assert.equal(
    render('{{ messages[0].tool_calls[0].function.arguments | tojson }}', [call('{"a": [1, {"b": null}]}')]),
    '{"a": [1, {"b": null}]}',
  );
});

test('arguments that are no JSON object are refused by their place', () => {
  for (const text of ['{"city": "Par', '[1]', '5', 'null', '"x"', 'Paris']) {
    assert.throws(() => normaliseMessages([user('q'), call(text)], plain), {
      name: 'OptionError',
      code: 'InvalidOption',
      message: `messages[1].tool_calls[0].function.arguments must be an object, or JSON text of one, got ${JSON.stringify(text)}`,
    });
  }
});

const joins =
  "{% for m in messages %}{% for c in m.tool_calls %}{{ 'args:' + c.function.arguments }}{% endfor %}{% endfor %}";

test('a template that joins arguments to its text gets JSON text', () => {
  assert.equal(render(joins, [call('{"a":1.0}')]), 'args:{"a":1.0}', 'as it was given');
  assert.equal(render(joins, [call({ a: 1, b: ['x'] })]), 'args:{"a": 1, "b": ["x"]}');
  const writes = '{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}{% endfor %}';
  assert.equal(render(writes, [call('{"a": true}')]), '{"a": true}', 'not as Python writes a dict');
  assert.equal(render(writes, [call({ a: true })]), "{'a': True}", 'as Python has it');
});

test('reasoning under one of its names fills the others', () => {
  const shown = '{{ messages[0].reasoning_content }},{{ messages[0].thinking }},{{ messages[0].reasoning }}';
  for (const name of ['reasoning', 'thinking', 'reasoning_content'])
    assert.equal(render(shown, [{ role: 'assistant', content: 'a', [name]: 'why' }]), 'why,why,why', name);
  const two = { role: 'assistant', thinking: 't', reasoning: 'r', reasoning_content: null };
  assert.equal(render(shown, [two]), 't,t,r', 'what is given stays');
  assert.equal(
    render('{{ messages[0] | tojson }}', [{ role: 'assistant', content: 'a', thinking: 'why' }]),
    '{"thinking": "why", "role": "assistant", "content": "a", "reasoning_content": "why"}',
    'transformers has no key reasoning',
  );
});

const knowsText = "{% for m in messages %}<{{ m.role }}>{{ m.content + '' }}{% endfor %}";
const writesAll = '{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}';
const dropsParts =
  '{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}';
const firstOnly =
  '{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}{% endfor %}';
const knowsBoth =
  '{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}';
const userOnly =
  "{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' and m.content is not string %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% else %}{{ m.content | trim }}{% endif %}{% endfor %}";
const partsOnly =
  "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}";

test('content parts become a text where the template knows none', () => {
  const parts = user(texts('one', 'two'));
  for (const template of [knowsText, writesAll, dropsParts, firstOnly])
    assert.equal(render(template, [parts]), '<user>one\ntwo', template);
  assert.equal(render(knowsBoth, [parts]), '<user>[one][two]');
  const system = { role: 'system', content: texts('one', 'two') };
  assert.equal(render(userOnly, [system, parts]), '<system>one\ntwo<user>[one][two]', 'each role by itself');
  assert.equal(
    render(writesAll, [user(['one', { text: 'two' }, { type: 'input_text', text: 'three' }])]),
    '<user>one\ntwo\nthree',
  );
  assert.equal(render(writesAll, [user([])]), '<user>');
});

test('a text becomes a part where the template shows nothing else', () => {
  assert.equal(render(partsOnly, [user('hello')]), '<user>hello');
  assert.equal(render(partsOnly, [user(texts('one', 'two'))]), '<user>onetwo');
  assert.equal(render(knowsBoth, [user('hello')]), '<user>hello');
  const strict =
    '{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text.strip() }}{% endfor %}{% endfor %}';
  const turns = [user('hello'), { role: 'assistant', content: 'yes' }, user('why?')];
  const first = '{% for m in messages %}<{{ m.role }}>{{ m.content[0].text + "" }}{% endfor %}';
  assert.equal(
    render(first, [user(texts('one', 'two')), { role: 'assistant', content: 'yes' }]),
    '<user>one\ntwo<assistant>yes',
  );
  assert.equal(render(strict, turns), '<user>hello<assistant>yes<user>why?');
});

test('thoughts among parts are reasoning', () => {
  const content: ContentPart[] = [{ type: 'thinking', thinking: 'why' }, ...texts('so')];
  assert.equal(
    render('{{ messages[0].thinking }}|{{ messages[0].content + "" }}', [{ role: 'assistant', content }]),
    'why|so',
  );
});

test('parts that are no text are refused by their place', () => {
  const image = { type: 'image_url', image_url: { url: 'data:' } };
  const refused = {
    name: 'OptionError',
    message:
      'messages[1].content[1] must be a text, as in {"type": "text", "text": "..."} (no images, sound or files), got "image_url"',
  };
  const messages = [user('q'), user([...texts('what is this?'), image])];
  assert.throws(() => render(writesAll, messages), refused);
  assert.throws(() => checkTextOnly(messages), refused);
  assert.doesNotThrow(() => render(knowsBoth, messages), 'a template with a place for it');
  for (const part of [null, 5, { type: 'text' }, { type: 'text', text: 5 }, ['x'], { type: 'file' }])
    assert.throws(() => render(writesAll, [user([part])]), OptionError, JSON.stringify(part));
});

test('a template is tried once for each kind of role', () => {
  let renders = 0;
  const traits = new ProbedTraits('', (messages) => {
    renders++;
    return JSON.stringify(messages);
  });
  for (const role of ['user', 'user', 'system', 'assistant', 'model', 'x1', 'x2', 'x3']) traits.contentOf(role);
  assert.equal(renders, 9, 'user, system, assistant: a text, parts between texts, parts between parts');
  traits.arguments();
  const before = renders;
  traits.arguments();
  assert.equal(renders, before);
});

test('what people wrote is known as theirs after all of it', () => {
  const written = (template: string, message: Message): string =>
    new ChatTemplate(template)
      .render([message])
      .parts.filter(({ parseSpecial }) => !parseSpecial)
      .map(({ text }) => text)
      .join('|');
  assert.equal(written(writesAll, user(texts('<end>', '<x>'))), '<end>\n<x>');
  assert.equal(written(partsOnly, user('<end>')), '<end>');
  assert.equal(written('{{ messages[0].thinking }}', { role: 'assistant', reasoning: '<end>' }), '<end>');
  const shown = '{% for k, v in messages[0].tool_calls[0].function.arguments|items %}<{{ k }}>{{ v }}{% endfor %}';
  assert.equal(written(shown, call('{"<k>": "<v>"}')), '<k>|<v>');
  assert.equal(written(joins, call({ a: '<v>' })), '{"a": "<v>"}');
});

test('messages that are none are refused by their place', () => {
  for (const messages of [[null], ['x'], [{ content: 'x' }], [{ role: 5 }]])
    assert.throws(() => render('x', messages as never), /^OptionError: messages\[0\] must be an object with a role/);
  assert.throws(() => render('x', {} as never), /messages must be an array/);
});
