/** POST /v1/chat/completions, without a network. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { load, type Model } from '../../src/node.ts';
import { createApp } from '../../src/server/app.ts';
import { keyCheck } from '../../src/server/keys.ts';
import { Models } from '../../src/server/models.ts';

let model: Model;
let app: ReturnType<typeof createApp>;
const bugs: unknown[] = [];

before(async () => {
  model = await load(undefined, { threads: 2, contextLength: 256 });
  app = appWith();
});
after(async () => {
  await model.dispose();
  assert.deepEqual(bugs, []);
});

const appWith = (keys?: readonly string[]): ReturnType<typeof createApp> =>
  createApp({
    models: new Models([{ name: 'stories', root: 'here', model, created: 1 }]),
    version: '0',
    mayAsk: keys && keyCheck(keys),
    maxBodyBytes: 1e6,
    onBug: (error) => bugs.push(error),
  });

const post = (body: unknown, headers: Record<string, string> = {}): Promise<Response> =>
  Promise.resolve(
    app.request('/v1/chat/completions', {
      method: 'POST',
      body: typeof body === 'string' ? body : JSON.stringify(body),
      headers: { 'content-type': 'application/json', ...headers },
    }),
  );

interface Chunk {
  readonly id: string;
  readonly object: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
  readonly choices: readonly {
    readonly index: number;
    readonly delta: { readonly role?: string; readonly content?: string };
    readonly logprobs: { readonly content: readonly { readonly token: string; readonly logprob: number }[] } | null;
    readonly finish_reason: string | null;
  }[];
  readonly usage?: Usage;
}
interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  readonly completion_tokens_details: { readonly reasoning_tokens: number };
}
interface Completion extends Omit<Chunk, 'choices'> {
  readonly choices: readonly {
    readonly index: number;
    readonly message: Record<string, unknown>;
    readonly logprobs: { readonly content: readonly { readonly token: string; readonly bytes: number[] }[] } | null;
    readonly finish_reason: string;
  }[];
}
interface Failure {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

async function chunksOf(response: Response): Promise<Chunk[]> {
  assert.equal(response.headers.get('content-type'), 'text/event-stream; charset=utf-8');
  const lines = (await response.text()).split('\n\n');
  assert.deepEqual(lines.slice(-2), ['data: [DONE]', '']);
  return lines.slice(0, -2).map((line) => JSON.parse(line.replace(/^data: /, '')) as Chunk);
}

const messages = [{ role: 'user', content: 'Tell me a story.' }];
const short = { messages, max_tokens: 12, temperature: 0.9, seed: 7 };

test('stream, whole answer and library give the same text, finish reason and usage', async () => {
  const options = { maxTokens: 12, temperature: 0.9, seed: 7 };
  const expected = await model.complete({ messages }, options);
  const whole = (await (await post(short)).json()) as Completion;
  const chunks = await chunksOf(await post({ ...short, stream: true, stream_options: { include_usage: true } }));
  const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
  assert.equal(whole.choices[0]!.message.content, expected.text);
  assert.equal(text, expected.text);
  assert.equal(whole.choices[0]!.finish_reason, 'length');
  assert.equal(chunks.at(-2)!.choices[0]!.finish_reason, 'length');
  const { promptTokens, completionTokens } = expected.usage;
  for (const { usage } of [whole, chunks.at(-1)!]) {
    assert.equal(usage!.prompt_tokens, promptTokens);
    assert.equal(usage!.completion_tokens, completionTokens);
    assert.equal(usage!.total_tokens, promptTokens + completionTokens);
    assert.ok(usage!.prompt_tokens_details.cached_tokens >= 0);
    assert.equal(usage!.completion_tokens_details.reasoning_tokens, 0);
  }
});

test('chunks: the role first and once, everything on each, an empty delta at the end, usage only if asked for', async () => {
  const chunks = await chunksOf(await post({ ...short, stream: true }));
  assert.deepEqual(chunks[0]!.choices[0]!.delta, { role: 'assistant', content: '' });
  for (const { id, object, created, model: name, system_fingerprint, choices, usage } of chunks) {
    assert.deepEqual([id, object, name], [chunks[0]!.id, 'chat.completion.chunk', 'stories']);
    assert.deepEqual([created, system_fingerprint], [chunks[0]!.created, 'lanewise-0']);
    assert.equal(usage, undefined);
    assert.deepEqual(Object.keys(choices[0]!), ['index', 'delta', 'logprobs', 'finish_reason']);
  }
  for (const { choices } of chunks.slice(1)) assert.equal(choices[0]!.delta.role, undefined);
  for (const { choices } of chunks.slice(1, -1)) assert.equal(typeof choices[0]!.delta.content, 'string');
  assert.deepEqual(chunks.at(-1)!.choices[0]!.delta, {});
  assert.ok(chunks.slice(0, -1).every(({ choices }) => choices[0]!.finish_reason === null));
});

test('a whole answer has no keys that clients trip over', async () => {
  const { choices, object } = (await (await post(short)).json()) as Completion;
  assert.equal(object, 'chat.completion');
  const { content, ...rest } = choices[0]!.message;
  assert.equal(typeof content, 'string');
  assert.deepEqual(rest, { role: 'assistant', refusal: null });
});

test('log-probabilities have tokens, bytes and alternatives, alike in stream and whole answer', async () => {
  const asked = { ...short, logprobs: true, top_logprobs: 3 };
  const whole = (await (await post(asked)).json()) as Completion;
  const listed = whole.choices[0]!.logprobs!.content;
  assert.equal(listed.length, 12);
  const bytes = listed.flatMap(({ bytes: some }) => some);
  assert.equal(
    new TextDecoder().decode(Uint8Array.from(bytes)).trim(),
    String(whole.choices[0]!.message.content).trim(),
  );
  const chunks = await chunksOf(await post({ ...asked, stream: true }));
  assert.deepEqual(
    chunks.flatMap(({ choices }) => choices[0]!.logprobs?.content ?? []),
    listed,
  );
});

test('several answers have different seeds, the first one that of the request', async () => {
  const { choices, usage } = (await (await post({ ...short, n: 3 })).json()) as Completion;
  assert.deepEqual(
    choices.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.equal(
    choices[0]!.message.content,
    (await model.complete({ messages }, { maxTokens: 12, temperature: 0.9, seed: 7 })).text,
  );
  assert.equal(new Set(choices.map(({ message }) => message.content)).size, 3);
  assert.equal(usage!.completion_tokens, 36);
  const chunks = await chunksOf(await post({ ...short, n: 3, stream: true }));
  const texts = [0, 1, 2].map((index) =>
    chunks.flatMap(({ choices: [choice] }) => (choice!.index === index ? [choice!.delta.content ?? ''] : [])).join(''),
  );
  assert.deepEqual(
    texts,
    choices.map(({ message }) => message.content),
  );
});

test('content as text and as one part is the same prompt; developer is system', async () => {
  const prompt = async (list: unknown): Promise<number> =>
    ((await (await post({ ...short, messages: list })).json()) as { usage: Usage }).usage.prompt_tokens;
  const text = await prompt([{ role: 'system', content: 'Be brief.' }, ...messages]);
  assert.equal(
    await prompt([{ role: 'developer', content: [{ type: 'text', text: 'Be brief.' }] }, ...messages]),
    text,
  );
});

test('max_tokens is a ceiling; a prompt that does not fit is context_length_exceeded with both numbers', async () => {
  const full = (await (await post({ messages, max_tokens: 100_000, ignore_eos: true, seed: 1 })).json()) as Completion;
  assert.equal(full.choices[0]!.finish_reason, 'length');
  assert.equal(full.usage!.total_tokens, 256);
  const long = await post({ messages: [{ role: 'user', content: 'word '.repeat(400) }] });
  assert.equal(long.status, 400);
  const { error } = (await long.json()) as Failure;
  assert.deepEqual([error.code, error.type], ['context_length_exceeded', 'invalid_request_error']);
  assert.match(error.message, /\b256\b/);
  assert.match(error.message, /\b4\d\d\b/);
});

for (const [what, body, status, code, param] of [
  ['no JSON', '{', 400, 'invalid_json', null],
  ['an array', '[]', 400, 'invalid_body', null],
  ['no messages', {}, 400, 'missing_field', 'messages'],
  ['empty messages', { messages: [] }, 400, 'invalid_value', 'messages'],
  ['a message without role', { messages: [{ content: 'x' }] }, 400, 'invalid_value', 'messages[0].role'],
  [
    'an image',
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
    400,
    'invalid_value',
    'messages[0].content[0]',
  ],
  ['a temperature below 0', { messages, temperature: -1 }, 400, 'invalid_value', 'temperature'],
  ['a text as number', { messages, max_tokens: '5' }, 400, 'invalid_value', 'max_tokens'],
  ['a wrong top_p', { messages, top_p: 3 }, 400, 'invalid_value', 'top_p'],
  ['another model', { messages, model: 'nobody' }, 404, 'model_not_found', 'model'],
  [
    'tools',
    { messages, tools: [{ type: 'function', function: { name: 'f' } }] },
    400,
    'unsupported_parameter',
    'tools',
  ],
  ['a schema', { messages, response_format: { type: 'json_object' } }, 400, 'unsupported_parameter', 'response_format'],
  ['stream_options without stream', { messages, stream_options: {} }, 400, 'invalid_value', 'stream_options'],
] as const) {
  test(`refused with the field at fault: ${what}`, async () => {
    for (const stream of [undefined, true]) {
      if (stream && (typeof body === 'string' || what.startsWith('stream'))) continue;
      const sent = typeof body === 'string' || stream === undefined ? body : { ...body, stream };
      const response = await post(sent);
      const { error } = (await response.json()) as Failure;
      assert.deepEqual([response.status, error.code, error.param], [status, code, param], error.message);
    }
  });
}

test('fields without effect are named, null and neutral ones are not', async () => {
  const odd = {
    user: 'me',
    made_up: 1,
    tools: [],
    tool_choice: 'none',
    top_p: null,
    response_format: { type: 'text' },
  };
  const response = await post({ ...short, ...odd });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('x-lanewise-ignored'), 'user, made_up');
});

test('a key is needed everywhere but for health, as bearer token or x-api-key', async () => {
  const locked = appWith(['secret', 'other']);
  const ask = async (path: string, headers: Record<string, string> = {}): Promise<number> =>
    (await locked.request(path, { headers })).status;
  assert.equal(await ask('/v1/models'), 401);
  assert.equal(await ask('/health'), 200);
  assert.equal(await ask('/v1/models', { authorization: 'Bearer secret' }), 200);
  assert.equal(await ask('/v1/models', { 'x-api-key': 'other' }), 200);
  assert.equal(await ask('/v1/models', { authorization: 'Bearer secre' }), 401);
  assert.equal(await ask('/v1//models'), 401);
});

test('compressed and large bodies, unknown paths', async () => {
  assert.equal((await post(short, { 'content-encoding': 'gzip' })).status, 415);
  assert.equal((await post({ messages: [{ role: 'user', content: 'x'.repeat(1_100_000) }] })).status, 413);
  const unknown = await app.request('/v1/nothing');
  assert.deepEqual([unknown.status, ((await unknown.json()) as Failure).error.code], [404, 'not_found']);
});

test('models are listed and found by name, slashes included', async () => {
  const list = (await (await app.request('/v1/models')).json()) as { data: object[] };
  const expected = {
    id: 'stories',
    object: 'model',
    created: 1,
    owned_by: 'lanewise',
    root: 'here',
    max_model_len: 256,
  };
  assert.deepEqual(list.data, [expected]);
  assert.deepEqual(await (await app.request('/v1/models/stories')).json(), expected);
  assert.equal((await app.request('/v1/models/org/other')).status, 404);
});

test('a client that goes away ends its request', async () => {
  const response = await post({ messages, stream: true, ignore_eos: true, max_tokens: 200 });
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  while (model.stats().running + model.stats().waiting > 0) await new Promise((resolve) => setTimeout(resolve, 5));
});
