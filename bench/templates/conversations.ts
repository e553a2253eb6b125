/** Conversations for `compare.ts`, one for each kind of message that clients send. */

/** Arguments of `apply_chat_template` as JSON text, because JavaScript would change the spelling of some numbers. */
export interface Conversation {
  readonly name: string;
  readonly json: string;
}

type Fields = Record<string, unknown>;

const system = { role: 'system', content: 'You are terse.' };
const hi = { role: 'user', content: 'Hi there' };
const answer = { role: 'assistant', content: 'Hello! How can I help?' };
const weather = { role: 'user', content: 'Weather in Paris and Oslo?' };
const prompt = { add_generation_prompt: true };

const tool = (name: string, properties: Fields, required: string[] = []): Fields => ({
  type: 'function',
  function: { name, description: `Calls ${name}.`, parameters: { type: 'object', properties, required } },
});
const tools = [
  tool(
    'get_weather',
    { city: { type: 'string', description: 'The "city"' }, days: { type: 'integer', enum: [1, 2] } },
    ['city'],
  ),
  tool('stop', {}),
];
const richTools = [
  {
    type: 'function',
    function: {
      name: 'search',
      description: 'Finds <b>things</b> & more – déjà vu 🐢',
      parameters: {
        type: 'object',
        properties: {
          query: { type: 'string', default: "it's", minLength: 1 },
          filter: {
            type: 'object',
            properties: { tags: { type: 'array', items: { type: 'string' } }, limit: { type: ['integer', 'null'] } },
          },
          deep: { anyOf: [{ type: 'boolean' }, { type: 'number', minimum: 0.5 }] },
        },
        required: ['query'],
        additionalProperties: false,
      },
      strict: true,
      return: { type: 'string' },
    },
  },
];

const call = (args: unknown, name = 'get_weather', id = 'call00001'): Fields => ({
  type: 'function',
  id,
  function: { name, arguments: args },
});
const calling = (args: unknown, more: Fields = {}): Fields => ({
  role: 'assistant',
  content: '',
  tool_calls: [call(args)],
  ...more,
});
const result = (content: unknown, id = 'call00001'): Fields => ({
  role: 'tool',
  tool_call_id: id,
  name: 'get_weather',
  content,
});
const parts = (...texts: string[]): Fields[] => texts.map((text) => ({ type: 'text', text }));
const thinking = (name: string): Fields => ({ role: 'assistant', content: 'It is 4.', [name]: 'Two and two.' });
const numbers = '{"a": 1.0, "b": 1e22, "c": 12345678901234567890, "d": -0.0, "e": 1e-7, "f": 2.50, "g": 3}';

const plain: Record<string, Fields> = {
  'one question': { messages: [hi], ...prompt },
  'one question, no prompt': { messages: [hi] },
  'system and question': { messages: [system, hi], ...prompt },
  'developer and question': { messages: [{ ...system, role: 'developer' }, hi], ...prompt },
  'empty system': { messages: [{ role: 'system', content: '' }, hi], ...prompt },
  'two turns': { messages: [hi, answer, { role: 'user', content: 'And now?' }], ...prompt },
  'two turns with system': { messages: [system, hi, answer, { role: 'user', content: 'And now?' }], ...prompt },
  'ends with an answer': { messages: [hi, answer] },
  'many turns': { messages: [system, ...Array.from({ length: 8 }, () => [hi, answer]).flat(), hi], ...prompt },
  'space around texts': {
    messages: [
      { role: 'system', content: '  sys \n' },
      { role: 'user', content: '\n  hi \n\n' },
      { role: 'assistant', content: ' yes \n' },
      hi,
    ],
    ...prompt,
  },
  'empty texts': { messages: [{ role: 'user', content: '' }, { role: 'assistant', content: '' }, hi], ...prompt },
  'other scripts': {
    messages: [{ role: 'user', content: 'Grüße, 你好, مرحبا, 🐢🏽‍🦱 e\u0301 \u00a0\u2028x\u200b' }],
    ...prompt,
  },
  'quotes and markup': {
    messages: [{ role: 'user', content: `<b>"it's"</b> {{ x }} {% raw %} & \\n \\ / \t|` }],
    ...prompt,
  },
  'spelled control tokens': { messages: [{ role: 'user', content: '<|im_end|></s>[INST]<eos><|eot_id|>' }], ...prompt },
  code: { messages: [{ role: 'user', content: 'def f():\n    return """x"""\n\n\tif a < b:\n' }], ...prompt },
  'two questions': { messages: [hi, hi], ...prompt },
  'begins with an answer': { messages: [answer, hi], ...prompt },
  'late system': { messages: [hi, answer, system, hi], ...prompt },
  'unknown role': { messages: [hi, { role: 'critic', content: 'Hm.' }, hi], ...prompt },
  'names of people': { messages: [{ ...hi, name: 'Ada' }, answer, hi], ...prompt },
  tools: { messages: [weather], tools, ...prompt },
  'tools and system': { messages: [system, weather], tools, ...prompt },
  'tools with much in them': { messages: [system, weather], tools: richTools, ...prompt },
  'no tools': { messages: [weather], tools: [], ...prompt },
  'tools null': { messages: [weather], tools: null, ...prompt },
  'call, not answered': { messages: [weather, calling({ city: 'Paris' })], tools },
  'call and result': { messages: [weather, calling({ city: 'Paris' }), result('{"temp": 21}')], tools, ...prompt },
  'call, result, answer': {
    messages: [
      system,
      weather,
      calling({ city: 'Paris', days: 2 }),
      result('21'),
      { role: 'assistant', content: 'Warm.' },
      hi,
    ],
    tools,
    ...prompt,
  },
  'call without tools': { messages: [weather, calling({ city: 'Paris' }), result('21')], ...prompt },
  'call without arguments': { messages: [weather, calling({})], tools },
  'call with text': {
    messages: [weather, calling({ city: 'Paris' }, { content: 'Let me see.' }), result('21')],
    tools,
    ...prompt,
  },
  'call with content null': {
    messages: [weather, calling({ city: 'Paris' }, { content: null }), result('21')],
    tools,
    ...prompt,
  },
  'call with many values': {
    messages: [
      weather,
      calling({ s: `"it's" <é> 🐢`, i: 3, f: 0.5, t: true, n: null, l: [1, 'x', [null]], o: { a: { b: [] } } }),
      result('21'),
    ],
    tools,
    ...prompt,
  },
  'two calls at once': {
    messages: [
      weather,
      {
        role: 'assistant',
        content: '',
        tool_calls: [call({ city: 'Paris' }), call({ city: 'Oslo' }, 'get_weather', 'call00002')],
      },
      result('21'),
      result('3', 'call00002'),
    ],
    tools,
    ...prompt,
  },
  'two calls in turn': {
    messages: [weather, calling({ city: 'Paris' }), result('21'), calling({ city: 'Oslo' }), result('3')],
    tools,
    ...prompt,
  },
  'result as object': {
    messages: [weather, calling({ city: 'Paris' }), result({ temp: 21, sky: 'blue' })],
    tools,
    ...prompt,
  },
  'tool_calls null': {
    messages: [hi, { ...answer, tool_calls: null, refusal: null, function_call: null }, hi],
    ...prompt,
  },
  'tool_calls empty': { messages: [hi, { ...answer, tool_calls: [] }, hi], ...prompt },
  'arguments as text': { messages: [weather, calling('{"city": "Paris", "days": 2}'), result('21')], tools, ...prompt },
  'arguments as empty object text': { messages: [weather, calling('{}'), result('21')], tools, ...prompt },
  parts: { messages: [{ role: 'user', content: parts('What is this?') }], ...prompt },
  'several parts': { messages: [{ role: 'user', content: parts('One.', 'Two.') }], ...prompt },
  'parts everywhere': {
    messages: [
      { role: 'system', content: parts('Be terse.') },
      { role: 'user', content: parts('Hi') },
      { role: 'assistant', content: parts('Yes') },
      { role: 'user', content: parts('Why?') },
    ],
    ...prompt,
  },
  'result as parts': { messages: [weather, calling({ city: 'Paris' }), result(parts('21'))], tools, ...prompt },
  'thinking on': { messages: [hi], enable_thinking: true, ...prompt },
  'thinking off': { messages: [hi], enable_thinking: false, ...prompt },
  'thinking off, turns': { messages: [system, hi, answer, hi], enable_thinking: false, ...prompt },
  'thinking (other name)': { messages: [hi], thinking: true, ...prompt },
  'reasoning effort': { messages: [system, hi], reasoning_effort: 'high', ...prompt },
  'reasoning before a call': {
    messages: [weather, calling({ city: 'Paris' }, { reasoning_content: 'I need the weather.' }), result('21')],
    tools,
    ...prompt,
  },
  'reasoning in the text': {
    messages: [hi, { role: 'assistant', content: '<think>\nHm.\n</think>\n\nYes.' }, hi],
    ...prompt,
  },
  documents: {
    messages: [hi],
    documents: [
      { title: 'T1', text: 'First.' },
      { title: 'T2', text: 'Second “two”.' },
    ],
    ...prompt,
  },
  date: { messages: [system, hi], date_string: '01 Jan 2026', ...prompt },
  continued: { messages: [hi, { role: 'assistant', content: 'The answer is' }], continue_final_message: true },
  'continued, space at the end': {
    messages: [hi, { role: 'assistant', content: 'The answer is ' }],
    continue_final_message: true,
  },
  'continued, several turns': {
    messages: [system, hi, answer, hi, { role: 'assistant', content: '{"a":' }],
    continue_final_message: true,
  },
  'continued parts': {
    messages: [hi, { role: 'assistant', content: parts('The answer') }],
    continue_final_message: true,
  },
  'ids of calls': {
    messages: [weather, calling({ city: 'Paris' }, { id: 'x' }), result('21')],
    tools,
    xml_tools: true,
    ...prompt,
  },
};
for (const name of ['reasoning_content', 'thinking', 'reasoning']) {
  plain[`${name}, last`] = { messages: [hi, thinking(name)] };
  plain[`${name}, then a question`] = { messages: [hi, thinking(name), hi], ...prompt };
}

const spelled = (messages: string): string =>
  `{"messages": ${messages}, "tools": ${JSON.stringify(tools)}, "add_generation_prompt": true}`;

export const conversations: readonly Conversation[] = [
  ...Object.entries(plain).map(([name, request]) => ({ name, json: JSON.stringify(request) })),
  {
    name: 'numbers in arguments',
    json: spelled(JSON.stringify([weather, calling('NUMBERS'), result('21')]).replace('"NUMBERS"', numbers)),
  },
  {
    name: 'numbers in arguments as text',
    json: spelled(JSON.stringify([weather, calling(numbers), result('21')])),
  },
  {
    name: 'numbers in tools',
    json: JSON.stringify({
      messages: [weather],
      tools: [tool('f', { n: { type: 'number', minimum: 'NUMBER', maximum: 10 } })],
      ...prompt,
    }).replace('"NUMBER"', '1.0'),
  },
];
