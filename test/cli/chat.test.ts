import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { golden, lanewise } from './run.ts';

const template =
  "{{ bos_token }}{% for m in messages %}{% if loop.first and m.role == 'assistant' %}{{ raise_exception('people speak first') }}{% endif %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-chat-'));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

/** A model of random weights that can chat. */
async function chatModel(t: TestContext): Promise<string> {
  const path = await folder(t);
  await cp(golden('models/llama-gqa-f16'), path, { recursive: true });
  await writeFile(join(path, 'chat_template.jinja'), template);
  return path;
}

const greedy = ['--temperature', '0', '--max-tokens', '6', '--ignore-eos'];

test('piped turns are answered one by one; the second reads only what is new', async (t) => {
  const model = await chatModel(t);
  const { code, out, err } = await lanewise(['chat', model, ...greedy], { input: 'hello\nand now?\n' });
  assert.equal(code, 0, err);
  assert.equal(err.split('\n').length, 3);
  const [first, second] = [
    ...err.matchAll(/^\[(\d+) new of (\d+) tokens read in \d+\.\d\d s, 6 written in .*\]$/gm),
  ].map(([, fresh, all]) => [Number(fresh), Number(all)]);
  assert.equal(first![0], first![1]);
  assert.ok(second![0]! < second![1]! && second![1]! > first![1]!, err);
  assert.ok(out.split('\n').length >= 3);
  const alone = await lanewise(['chat', model, ...greedy], { input: 'hello\n' });
  assert.ok(out.startsWith(alone.out));
});

test('commands: /clear, /system, /set, /show, /regen, /save, /load, /help, /exit', async (t) => {
  const model = await chatModel(t);
  const saved = join(await folder(t), 'chat.json');
  const turns = [
    'hello',
    '/regen',
    `/save ${saved}`,
    '/clear',
    'hello',
    '/system Be brief.',
    '/set max-tokens 2',
    '/show',
    '/frobnicate',
    '/set colour 3',
    '/set top-p 7',
    '/set temperature abc',
    '/load nowhere.json',
    '/save nowhere/chat.json',
    `/load ${saved}`,
    '/show',
    '/help',
    '/exit',
    'never',
  ];
  const { code, out, err } = await lanewise(['chat', model, ...greedy], { input: turns.join('\n') });
  assert.equal(code, 0);
  const answers = err.match(/^\[.* new of /gm);
  assert.equal(answers?.length, 3);
  const third = out.length / 3;
  assert.equal(out, out.slice(0, third).repeat(3));
  const { messages } = JSON.parse(await readFile(saved, 'utf8'));
  assert.deepEqual(
    messages.map(({ role }: { role: string }) => role),
    ['user', 'assistant'],
  );
  assert.match(err, /^system: Be brief\.$/m);
  assert.match(err, /^temperature 0, max-tokens 2|^max-tokens 2, temperature 0$/m);
  for (const message of [
    /\/frobnicate is not known/,
    /\/set knows max-tokens, .* not "colour"/,
    /^error: \/set top-p must be in \(0, 1\], got 7$/m,
    /^error: \/set temperature must be a number, got "abc"$/m,
    /^error: \/load nowhere\.json cannot be read: ENOENT$/m,
    /^error: \/save nowhere\/chat\.json cannot be written: ENOENT$/m,
    /^2 messages, \d+ of \d+ tokens/m,
  ])
    assert.match(err, message);
});

test('/load takes what /save writes, and shows nothing of other files', async (t) => {
  const model = await chatModel(t);
  const path = await folder(t);
  const call = { role: 'assistant', content: null, tool_calls: [] };
  const sound = [{ messages: [] }, { system: 'x', messages: [{ role: 'user', content: 'y' }, call] }];
  const wrong = [
    'secret',
    '"secret"',
    'null',
    '[]',
    '{"messages": 1}',
    '{"messages": [null]}',
    '{"messages": [{"role": "user"}]}',
    '{"messages": [{"role": "user", "content": null}]}',
    '{"messages": [{"role": "user", "content": 5}]}',
    '{"messages": [{"content": "secret"}]}',
    '{"system": 1, "messages": []}',
  ];
  const files = [...sound.map((json) => JSON.stringify(json)), ...wrong].map((text, i) => ({
    text,
    file: join(path, `${i}.json`),
  }));
  for (const { file, text } of files) await writeFile(file, text);
  const { code, err } = await lanewise(['chat', model, ...greedy], {
    input: files.map(({ file }) => `/load ${file}\n`).join(''),
  });
  assert.equal(code, 0);
  const expected = '{"messages": [{"role": "user", "content": "text"}]}, as /save writes it';
  assert.deepEqual(
    err.trimEnd().split('\n'),
    files.map(({ file }, i) =>
      i < sound.length
        ? `${sound[i]!.messages.length} messages from ${file}`
        : `error: /load ${file}: expected ${expected}`,
    ),
  );
});

test('texts of several lines, by backslash and by quotes', async (t) => {
  const model = await chatModel(t);
  const saved = join(await folder(t), 'chat.json');
  const { code, err } = await lanewise(['chat', model, ...greedy, '--system', 'x'], {
    input: `one\\\ntwo\n"""three\n\nfour"""\n/save ${saved}\n`,
  });
  assert.equal(code, 0, err);
  const { system, messages } = JSON.parse(await readFile(saved, 'utf8'));
  assert.equal(system, 'x');
  assert.deepEqual([messages[0].content, messages[2].content], ['one\ntwo', 'three\n\nfour']);
});

test('Ctrl-C stops the answer and not the program', async (t) => {
  const model = await chatModel(t);
  const main = fileURLToPath(new URL('../../src/cli/lanewise.ts', import.meta.url));
  const child = spawn(process.execPath, [
    main,
    'chat',
    model,
    '--temperature',
    '0',
    '--max-tokens',
    '100000',
    '--ignore-eos',
    '--threads',
    '1',
  ]);
  let [out, err] = ['', ''];
  child.stdout.on('data', (data) => {
    out += data;
    if (out.length > 5 && !child.killed) child.kill('SIGINT');
  });
  child.stderr.on('data', (data) => {
    err += data;
    if (err.includes('(stopped)')) child.stdin.end('/show\n');
  });
  child.stdin.write('hello\n');
  const code = await new Promise((resolve) => child.on('close', resolve));
  assert.equal(code, 0, err);
  assert.match(err, /\(stopped\)\n.*\n2 messages, /s);
});

test('a model without a template says so; a template can be given', async (t) => {
  const file = join(await folder(t), 'mine.jinja');
  await writeFile(file, '{{ messages[-1].content }}');
  const refused = await lanewise(['chat', golden('models/llama-gqa-f16')], { input: 'hello\n' });
  assert.deepEqual([refused.code, refused.out], [1, '']);
  assert.match(refused.err, /^error: [^\n]* has no chat template, [^\n]*\n$/);
  const given = await lanewise(['chat', '--chat-template', file, ...greedy], { input: 'Once upon a time' });
  assert.equal(given.code, 0, given.err);
  assert.match(given.out, /, there was a/);
});

test('generate takes messages, alone and in batches', async (t) => {
  const model = await chatModel(t);
  const messages = [{ role: 'user', content: 'hello' }];
  const file = join(await folder(t), 'messages.json');
  await writeFile(file, JSON.stringify(messages));
  const one = await lanewise(['generate', model, ...greedy, '--messages', file, '--json']);
  assert.equal(one.code, 0, one.err);
  const { token_ids, prompt_token_ids } = JSON.parse(one.out);
  const batch = file.replace('.json', '.jsonl');
  await writeFile(
    batch,
    [{ prompt: 'hi there' }, { messages }, { messages, tools: [] }].map((line) => `${JSON.stringify(line)}\n`).join(''),
  );
  const many = await lanewise(['generate', model, ...greedy, '--batch-file', batch, '--json']);
  const results = many.out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    results.map((result) => result.token_ids.length),
    [6, 6, 6],
  );
  assert.deepEqual([results[1].token_ids, results[1].prompt_token_ids], [token_ids, prompt_token_ids]);
  await writeFile(file, JSON.stringify([{ role: 'assistant', content: 'x' }]));
  const refused = await lanewise(['generate', model, '--messages', file]);
  assert.deepEqual([refused.code, refused.err], [1, 'error: people speak first\n']);
  for (const wrong of ['{"messages":[1]}', '[{"role":"user"}]']) {
    await writeFile(file, wrong);
    assert.match(
      (await lanewise(['generate', model, '--messages', file])).err,
      /^error: --messages .*: expected {"messages": \[/,
    );
  }
});

test('template render answers each line', async () => {
  const { now, cases } = JSON.parse(await readFile(golden('chat/cases.json'), 'utf8'));
  const own = cases.filter(({ template }: { template: string }) => template === 'llama3');
  const lines = own.map(({ messages, options, bos_token, eos_token }: Record<string, object>) =>
    JSON.stringify({ messages, ...options, bos_token, eos_token, now }),
  );
  const { code, out } = await lanewise(['template', 'render', golden('chat/llama3.jinja'), '--jsonl'], {
    input: [...lines, '{', '{"messages":1}'].join('\n'),
  });
  assert.equal(code, 0);
  const answers = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  for (const [i, one] of own.entries()) {
    if (one.error === undefined) assert.deepEqual(answers[i], { text: one.output });
    else assert.ok(answers[i].error);
  }
  assert.match(answers.at(-2).error, /^invalid JSON/);
  assert.match(answers.at(-1).error, /messages must be an array/);
});

test("a template of one's own begins with the tokenizer's BOS where the model has no template", async (t) => {
  const file = join(await folder(t), 'mine.jinja');
  const messages = file.replace('mine.jinja', 'messages.json');
  await writeFile(file, '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}');
  await writeFile(messages, JSON.stringify([{ role: 'user', content: 'hello' }]));
  const args = ['generate', golden('gguf/llama-f32.gguf'), ...greedy, '--messages', messages, '--json'];
  const { code, out, err } = await lanewise([...args, '--chat-template', file]);
  assert.equal(code, 0, err);
  assert.equal(JSON.parse(out).prompt_token_ids[0], 1);
  const refused = await lanewise(['chat', golden('gguf/llama-f32.gguf')], { input: 'hello' });
  assert.match(refused.err, /llama-f32\.gguf has no chat template, /);
});

test('templates by name: tool_use where there are tools, others when asked for', async () => {
  const model = golden('chat/named-templates');
  const messages = [{ role: 'user', content: 'hi' }];
  const lines = [
    { messages, tools: [{ type: 'function', function: { name: 'f' } }] },
    { messages },
    { messages, tools: [] },
  ];
  const input = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  const shown = async (...args: string[]): Promise<unknown[]> =>
    (await lanewise(['template', 'render', model, '--jsonl', ...args], { input })).out
      .trim()
      .split('\n')
      .map((line) => Object.values(JSON.parse(line))[0]);
  assert.deepEqual(await shown(), ['T 1 hi', 'D hi', 'D hi']);
  assert.deepEqual(await shown('--chat-template', 'default'), ['D hi', 'D hi', 'D hi']);
  const [wrong] = await shown('--chat-template', 'rag');
  assert.match(
    String(wrong),
    /^--chat-template must be one of the model's chat templates \(default, tool_use\), got "rag"/,
  );
});

test('numbers of JSON keep their spelling', async (t) => {
  const file = join(await folder(t), 'mine.jinja');
  await writeFile(file, '{{ messages[0].n | tojson }}');
  const input = '{"messages": [{"role": "user", "content": "x", "n": [1.0, 1e22, 12345678901234567890, 2]}]}\n';
  const { out } = await lanewise(['template', 'render', file, '--jsonl'], { input });
  assert.deepEqual(JSON.parse(out), { text: '[1.0, 1e+22, 12345678901234567890, 2]' });
});

test('a full chat says what it can do; --context-shift leaves out the oldest turns', async (t) => {
  const model = await chatModel(t);
  const input = `${Array.from({ length: 6 }, (_, i) => `a few words to fill the context with, number ${i}`).join('\n')}\n`;
  const args = ['chat', model, ...greedy, '--context-length', '100'];
  const full = await lanewise(args, { input });
  assert.equal(full.code, 0);
  assert.match(
    full.err,
    /^error: the prompt has \d+ tokens, the context holds 100; \/clear starts a new conversation, --context-shift leaves out the oldest turns, --context-length raises the limit up to 128$/m,
  );
  const shifted = await lanewise([...args, '--context-shift'], { input });
  assert.equal(shifted.code, 0);
  assert.doesNotMatch(shifted.err, /^error/m);
  assert.equal(shifted.err.match(/^\[.* new of /gm)?.length, 6);
  assert.match(shifted.err, /^\(the oldest \d+ messages are left out\)$/m);
});

test('a chat template beside a plain prompt is refused, for nothing would come of it', async () => {
  for (const given of [
    ['--prompt', 'x'],
    ['--token-ids', '1'],
  ]) {
    const { code, out, err } = await lanewise(['generate', ...given, '--chat-template', 'tool_use']);
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /^error: --chat-template is for --messages and --batch-file; [^\n]*\n$/);
  }
});
