import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { ChatTemplate, type Message, type RenderOptions } from '../../src/chat/template.ts';
import { TemplateError } from '../../src/errors.ts';

type Case = readonly [template: string, text: string | null, error?: string];

const folder = new URL('../golden/chat-language/', import.meta.url);
const { data, cases } = JSON.parse(readFileSync(new URL('cases.json', folder), 'utf8')) as {
  data: { messages: Message[] } & RenderOptions;
  cases: Case[];
};

test('templates are rendered as Jinja renders them', () => {
  const wrong: unknown[] = [];
  for (const [template, expected, error] of cases) {
    let found: string | null;
    try {
      found = new ChatTemplate(template).render(data.messages, { addGenerationPrompt: true }).text;
    } catch (caught) {
      if (!(caught instanceof TemplateError)) throw new Error(`${template}: ${caught}`, { cause: caught });
      found = null;
      if (expected !== null) wrong.push({ template, expected, message: caught.message });
      continue;
    }
    if (found !== expected) wrong.push({ template, expected: expected ?? error, found });
  }
  assert.deepEqual(wrong.slice(0, 20), [], `${wrong.length} of ${cases.length} cases differ`);
});

const faults = new URL('../golden/chat-faults/', import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, faults), 'utf8');

for (const name of readdirSync(faults).filter((file) => file.endsWith('.want'))) {
  test(`${name.slice(3, -5)} is as transformers has it`, () => {
    const template = new ChatTemplate(read(name.replace('.want', '.jinja')));
    const { messages } = JSON.parse(read(name.replace('.want', '.json'))) as { messages: Message[] };
    // The last line may be a note.
    const want = read(name).replace(/\n# .*$/, '');
    if (want.startsWith('ERROR')) assert.throws(() => template.render(messages), TemplateError);
    else assert.equal(template.render(messages).text, want);
  });
}

test('a long talk and many tools are within the limits', () => {
  for (const name of ['many-tools', 'long']) {
    const { messages, tools } = JSON.parse(read(`${name}.json`)) as { messages: Message[]; tools?: unknown[] };
    const { text } = new ChatTemplate(read(`${name}.jinja`)).render(messages, { tools });
    if (tools) assert.equal(text, `${tools.map((tool) => pythonJson(tool)).join('\n')}\n`);
    else assert.equal(text, messages.map(({ content }) => content).join(''));
  }
});

/** As Python writes JSON. */
function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([key, item]) => `${JSON.stringify(key)}: ${pythonJson(item)}`)
    .join(', ')}}`;
}

test('every filter, test, global and method that Jinja has is there', () => {
  const names = JSON.parse(readFileSync(new URL('names.json', folder), 'utf8')) as {
    filters: string[];
    tests: string[];
    globals: string[];
    methods: Record<string, string[]>;
  };
  const render = (template: string): string => new ChatTemplate(template).render(data.messages).text;
  for (const name of names.filters) assert.equal(render(`{{ '${name}' is filter }}`), 'True', name);
  for (const name of names.tests) assert.equal(render(`{{ '${name}' is test }}`), 'True', name);
  for (const name of names.globals) assert.equal(render(`{{ ${name} is callable }}`), 'True', name);
  const values = { str: "''", list: '[]', tuple: '()', dict: '{}', int: '(1)', float: '(1.0)', range: 'range(1)' };
  for (const [type, value] of Object.entries(values))
    for (const name of names.methods[type]!)
      assert.equal(render(`{{ ${value}.${name} is callable }}`), 'True', `${type}.${name}`);
});
