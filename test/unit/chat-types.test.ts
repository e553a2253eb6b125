/** What the types of messages take and refuse: the compiler decides, as part of `npm run check`. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { ChatTemplate, type Message, type Tool } from '../../src/index.ts';

const weather: Tool = {
  type: 'function',
  function: { name: 'weather', description: 'The weather of a city', parameters: { type: 'object', properties: {} } },
};

const conversation: readonly Message[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: [{ type: 'text', text: 'And in ' }, 'Paris?'] },
  {
    role: 'assistant',
    content: null,
    reasoning_content: 'I ask.',
    tool_calls: [{ id: 'c1', type: 'function', function: { name: 'weather', arguments: '{"city": "Paris"}' } }],
  },
  { role: 'tool', tool_call_id: 'c1', content: { degrees: 18 } },
  { role: 'ipython', content: 'a role that some templates know', turn: 4 },
];

test('messages, parts, calls, results and tools have types that a template renders', () => {
  const source =
    '{% for m in messages %}{{ m.role }}:{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments.city }}{% endfor %};{% endfor %}{{ tools[0].function.name }}';
  const { text } = new ChatTemplate(source).render(conversation, { tools: [weather] });
  assert.equal(text, 'system:;user:;assistant:weatherParis;tool:;ipython:;weather');
});

test('the compiler refuses what no message is', () => {
  const wrong: Message[] = [
    // @ts-expect-error: a message has a role
    { content: 'x' },
    // @ts-expect-error: content is text or parts
    { role: 'user', content: 5 },
    // @ts-expect-error: only the result of a tool is an object
    { role: 'user', content: { degrees: 18 } },
    // @ts-expect-error: a part of type text has a text
    { role: 'user', content: [{ type: 'text' }] },
    // @ts-expect-error: a call has a name
    { role: 'assistant', tool_calls: [{ type: 'function', function: { arguments: {} } }] },
    // @ts-expect-error: arguments are an object or JSON text of one
    { role: 'assistant', tool_calls: [{ name: 'f', arguments: 5 }] },
  ];
  assert.throws(() => new ChatTemplate('{{ messages }}').render(wrong), /messages\[0\] must be an object with a role/);
});
