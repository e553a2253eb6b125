/**
 * Renders conversations with chat templates and compares the texts with those of transformers.
 *
 *   python -m venv venv && venv/bin/pip install transformers jinja2
 *   node bench/templates/compare.ts --python venv/bin/python FOLDER... [--show 5] [--write docs/chat.md]
 *
 * A FOLDER is searched for .jinja files, tokenizer_config.json and chat_template.json. --show prints differences,
 * --only TEXT selects templates whose path contains the text, --write writes the table to a page.
 */
import { spawn } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseJson, stringifyJson } from '../../src/chat/json.ts';
import { ChatTemplate, type FunctionCall, LanewiseError, type Message, type Tool } from '../../src/node.ts';
import { conversations } from './conversations.ts';

const NOW = '2026-02-03T04:05:06';
const tokens = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>', pad_token: '<pad>' };
const BEGIN = '<!-- templates: begin -->';
const END = '<!-- templates: end -->';

interface Answer {
  readonly text?: string;
  readonly error?: string;
}
interface Request {
  readonly messages: readonly Message[];
  readonly tools?: Tool[] | null;
  readonly add_generation_prompt?: boolean;
  readonly continue_final_message?: boolean;
  readonly [variable: string]: unknown;
}
interface Job {
  readonly template: number;
  readonly name: string;
  readonly json: string;
}

async function templatesIn(folders: readonly string[], only: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const add = (text: unknown, path: string): void => {
    if (typeof text === 'string' && path.includes(only) && ![...found.values()].includes(text)) found.set(path, text);
  };
  for (const folder of folders) {
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (!entry.isFile()) continue;
      if (/\.(jinja2?|j2)$/.test(entry.name)) add(await readFile(path, 'utf8'), path);
      if (!/^(tokenizer_config|chat_template).*\.json$/.test(entry.name)) continue;
      const { chat_template: given } = JSON.parse(await readFile(path, 'utf8'));
      if (!Array.isArray(given)) add(given, path);
      else for (const { name, template } of given) add(template, `${path}#${name}`);
    }
  }
  return found;
}

/** Renders all jobs with transformers. @throws Error if Python cannot run the script */
async function oracle(
  python: string,
  templates: readonly string[],
  jobs: readonly Job[],
): Promise<{ version: string; answers: Answer[] }> {
  const child = spawn(python, [new URL('oracle.py', import.meta.url).pathname], { stdio: ['pipe', 'pipe', 'inherit'] });
  const pieces: Buffer[] = [];
  child.stdout.on('data', (piece: Buffer) => pieces.push(piece));
  const list = jobs.map(({ template, json }) => `[${template}, ${json}]`).join(',');
  child.stdin.end(
    `{"now": ${JSON.stringify(NOW)}, "tokens": ${JSON.stringify(tokens)}, "templates": ${JSON.stringify(templates)}, "jobs": [${list}]}`,
  );
  const code = await new Promise((resolve) => child.on('close', resolve));
  const [first, ...lines] = Buffer.concat(pieces).toString().trimEnd().split('\n');
  if (code !== 0 || lines.length !== jobs.length)
    throw new Error(`${python} ended with ${code} after ${lines.length} of ${jobs.length} answers`);
  return { version: JSON.parse(first!).version, answers: lines.map((line) => JSON.parse(line) as Answer) };
}

const parsed = new Map<string, ChatTemplate | string>();

function rendered(source: string, json: string): Answer {
  let template = parsed.get(source);
  try {
    if (!template) parsed.set(source, (template = new ChatTemplate(source)));
    if (typeof template === 'string') return { error: template };
    const { messages, tools, add_generation_prompt, continue_final_message, ...variables } = parseJson(json) as Request;
    const { text } = template.render(messages, {
      tools: tools ?? null,
      addGenerationPrompt: add_generation_prompt ?? false,
      continueFinalMessage: continue_final_message ?? false,
      bosToken: tokens.bos_token,
      eosToken: tokens.eos_token,
      specialTokens: { unk_token: tokens.unk_token, pad_token: tokens.pad_token },
      now: new Date(NOW),
      variables,
    });
    return { text };
  } catch (error) {
    if (!(error instanceof LanewiseError)) throw error;
    if (!template) parsed.set(source, error.message);
    return { error: error.message };
  }
}

/** Conversions that Lanewise applies to messages, applied here before transformers renders them. */
const rules: Readonly<Record<string, (message: Message) => Message>> = {
  'arguments given as JSON text are an object': (message) => ({
    ...message,
    tool_calls: (message.tool_calls as { function: FunctionCall }[] | undefined)?.map((call) =>
      typeof call.function.arguments === 'string'
        ? {
            ...call,
            function: { ...call.function, arguments: parseJson(call.function.arguments) as Record<string, unknown> },
          }
        : call,
    ),
  }),
  'parts become a text where the template knows none': (message) =>
    Array.isArray(message.content)
      ? { ...message, content: message.content.map(({ text }) => text).join('\n') }
      : message,
  'a text becomes a part where the template shows nothing else': (message) =>
    typeof message.content === 'string' && message.content !== ''
      ? { ...message, content: [{ type: 'text', text: message.content }] }
      : message,
  'reasoning fills the key reasoning too': (message) => {
    const thought = message.reasoning ?? message.reasoning_content ?? message.thinking;
    return thought === undefined ? message : { ...message, reasoning: thought };
  },
};

/** The conversation converted by a rule. */
function byRule(json: string, rule: (message: Message) => Message): string {
  const request = parseJson(json) as Request;
  return stringifyJson({ ...request, messages: request.messages.map(rule) });
}

const { values, positionals: folders } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    show: { type: 'string', default: '0' },
    only: { type: 'string', default: '' },
    write: { type: 'string' },
  },
});
if (folders.length === 0) {
  console.error(
    'usage: node bench/templates/compare.ts --python venv/bin/python FOLDER... [--show N] [--only TEXT] [--write PAGE]',
  );
  process.exit(2);
}
const found = await templatesIn(folders, values.only);
const [paths, sources] = [[...found.keys()], [...found.values()]];
const jobs: Job[] = sources.flatMap((_, template) => conversations.map((one) => ({ template, ...one })));
const { version, answers } = await oracle(values.python, sources, jobs);
const ours = jobs.map(({ template, json }) => rendered(sources[template]!, json));

const places = [...jobs.keys()];
const both = places.filter((i) => answers[i]!.text !== undefined);
const same = both.filter((i) => ours[i]!.text === answers[i]!.text);
const refused = places.length - both.length;
const mended = places.filter((i) => answers[i]!.text === undefined && ours[i]!.text !== undefined);
let left = both.filter((i) => ours[i]!.text !== answers[i]!.text);
const reasons = new Map<string, number[]>();
for (const [reason, rule] of Object.entries(rules)) {
  const again = left.map((i) => ({ ...jobs[i]!, json: byRule(jobs[i]!.json, rule) }));
  const { answers: others } = await oracle(values.python, sources, again);
  const explained = left.filter((i, k) => ours[i]!.text !== undefined && others[k]!.text === ours[i]!.text);
  reasons.set(reason, explained);
  left = left.filter((i) => !explained.includes(i));
}

const percent = (part: number): string => `${((100 * part) / both.length).toFixed(2)} %`;
const rows = [
  ['the same text', same.length],
  ...[...reasons].map(([reason, list]) => [reason, list.length] as const),
  ['unexplained', left.length],
] as const;
const table = `${sources.length} templates, ${conversations.length} conversations each, transformers ${version}: Python renders ${both.length} and
refuses ${refused} (of those Lanewise renders ${mended.length}).

| Of what Python renders | conversations | |
| --- | ---: | ---: |
${rows.map(([what, count]) => `| ${what} | ${count} | ${percent(count)} |`).join('\n')}`;
console.log(table);

for (const [reason, list] of Number(values.show) > 0 ? reasons : [])
  console.log(`\n${reason}: ${[...new Set(list.map((i) => basename(paths[jobs[i]!.template]!)))].join(', ')}`);
for (const i of left.slice(0, Number(values.show))) {
  const { template, name } = jobs[i]!;
  const [python, own] = [answers[i]!.text!, ours[i]!.text];
  console.log(`\n${basename(paths[template]!)}: ${name}`);
  if (own === undefined) console.log(`  Lanewise: ${ours[i]!.error}`);
  else {
    let at = 0;
    while (at < Math.min(python.length, own.length) && python[at] === own[at]) at++;
    const around = (text: string): string => JSON.stringify(text.slice(Math.max(0, at - 40), at + 60));
    console.log(`  Python:   ${around(python)}\n  Lanewise: ${around(own)}`);
  }
}
if (values.write !== undefined) {
  const page = await readFile(values.write, 'utf8');
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${values.write}: expected the lines ${BEGIN} and ${END}`);
  await writeFile(values.write, `${page.slice(0, begin + BEGIN.length)}\n${table}\n${page.slice(end)}`);
}
process.exitCode = left.length > 0 ? 1 : 0;
