/** Recordings and replays: equal to the bit whatever the schedule, the first token and layer that differ, bad files. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { before, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import {
  type Entry,
  embeddedModel,
  FormatError,
  LanewiseError,
  type LoadOptions,
  load,
  OptionError,
  parseRecording,
  Recording,
  type ReplayReport,
  recordToFile,
  replayRecording,
} from '../../src/node.ts';

const other = fileURLToPath(new URL('../golden/models/gpt2-tied-f32', import.meta.url));
const LAYERS = 6;

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-replay-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

const prompts = ['Once upon a time', 'One day, a little girl', 'The old wizard'];

/** Records the texts of `prompts`, generated side by side. */
async function record(options: LoadOptions, generation: object = {}): Promise<{ lines: string; ids: unknown }> {
  const entries: Entry[] = [];
  const record = new Recording((entry) => entries.push(entry));
  const model = await load(undefined, { inline: true, ...options, record });
  const results = await model.generateBatch(prompts, { maxTokens: 20, seed: 3, ...generation });
  await model.dispose();
  record.end();
  return { lines: linesOf(entries), ids: results.map(({ tokenIds }) => tokenIds) };
}

const linesOf = (entries: readonly Entry[]): string => entries.map((entry) => `${JSON.stringify(entry)}\n`).join('');
const entriesOf = (lines: string): Record<string, unknown>[] =>
  lines
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

const replay = (lines: string, options: LoadOptions = {}, path = embeddedModel): Promise<ReplayReport> =>
  replayRecording(parseRecording(lines, 'run.jsonl'), {
    file: 'run.jsonl',
    load: (recorded) => load(path, { inline: true, threads: 1, ...recorded, ...options }),
  });

let lines = '';
before(async () => {
  ({ lines } = await record({ threads: 2 }));
});

test('a recording replays equal with other threads, without batch and drafts, and has every position', async () => {
  const drafted = await record({ threads: 3, stepBudgetMs: 1, revectorize: false }, { speculate: 4 });
  for (const recorded of [lines, drafted.lines]) {
    const { equal, requests, weights } = await replay(recorded);
    assert.deepEqual([equal, weights], [true, []]);
    const content = parseRecording(recorded, 'run.jsonl');
    assert.deepEqual(
      content.requests.map(({ tokens }) => tokens.map(({ token }) => token)),
      drafted.ids,
    );
    for (const [i, { states, logits }] of requests.entries()) {
      const { prompt, tokens } = content.requests[i]!;
      assert.deepEqual([states, logits], [(prompt.length + tokens.length - 1) * (LAYERS + 1), tokens.length]);
    }
  }
});

test('requests that pause for others, and an engine in its own thread, are recorded in the same way', async () => {
  const paused = await record({ threads: 1, contextLength: 128, cacheTokens: 128 }, { maxTokens: 60 });
  const hosted = await record({ inline: false, threads: 2, quantize: 'q4_0' });
  for (const recorded of [paused.lines, hosted.lines]) assert.equal((await replay(recorded)).equal, true);
});

/** A copy of the embedded model with changed bytes. @param change gets the tensors' bytes by name */
async function damaged(t: TestContext, change: (tensors: Map<string, Uint8Array>) => void): Promise<string> {
  const path = join(await folder(t), 'model');
  await cp(embeddedModel, path, { recursive: true });
  const file = join(path, 'model.safetensors');
  const bytes = await readFile(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<string, { data_offsets: number[] }>;
  const tensors = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, { data_offsets }]) => {
      const [from, to] = data_offsets.map((at) => 8 + length + at);
      return [name, bytes.subarray(from, to)] as const;
    });
  change(new Map(tensors));
  await writeFile(file, bytes);
  return path;
}

test('a damaged weight of layer 2 is named, with the first token and the layer', async (t) => {
  const path = await damaged(t, (tensors) => {
    const [, bytes] = [...tensors].find(([name]) => /h\.2\.mlp\.c_fc\.weight$/.test(name))!;
    // The highest bit of the mantissa of some values.
    for (let i = 1; i < bytes.length; i += 200) bytes[i]! ^= 2;
  });
  const { equal, weights, requests } = await replay(lines, {}, path);
  assert.equal(equal, false);
  assert.deepEqual(weights, ['layers.2.ffn.up']);
  for (const [index, { difference }] of requests.entries()) {
    const token = parseRecording(lines, '').requests[index]!.prompt[0];
    assert.deepEqual(difference, { what: 'state', position: 0, token, place: 'layer[2]', prompt: true });
  }
});

test('a recording of another model is refused: of another shape, and of other weights', async (t) => {
  const refused = (error: unknown): boolean =>
    error instanceof FormatError &&
    error.code === 'OtherModel' &&
    error.message.startsWith('run.jsonl: recorded with ');
  await assert.rejects(replay(lines, {}, other), refused);
  const trained = await damaged(t, (tensors) => {
    for (const bytes of tensors.values()) for (let i = 0; i < bytes.length; i += 2) bytes[i]! ^= 1;
  });
  await assert.rejects(replay(lines, {}, trained), refused);
});

test('what a machine computes wrongly is named: a layer, the logits, the sampler', async () => {
  const changed = (change: (entry: Record<string, unknown>) => unknown): string =>
    linesOf(entriesOf(lines).map((entry) => change(entry) as Entry));
  const of1 = (entry: Record<string, unknown>): boolean => entry.request === 1;
  const { prompt, tokens } = parseRecording(lines, '').requests[1]!;
  const at = prompt.length + 4;
  const wrongRow = (row: string, state: number): string =>
    `${row.slice(0, 8 * state)}00000000${row.slice(8 * state + 8)}`;
  let token = 0;
  for (const [text, expected] of [
    [
      // From layer 3 on everything is wrong; what comes first is named.
      changed((entry) => {
        if (!of1(entry) || entry.at !== at) return entry;
        const [row] = entry.rows as [string];
        return { ...entry, rows: [wrongRow(wrongRow(row, 5), 4)] };
      }),
      { what: 'state', position: at, token: tokens[4]!.token, place: 'layer[3]', prompt: false },
    ],
    [
      changed((entry) => {
        if (!of1(entry) || entry.at !== 0) return entry;
        return { ...entry, rows: (entry.rows as string[]).map((row, i) => (i === 1 ? wrongRow(row, 0) : row)) };
      }),
      { what: 'state', position: 1, token: prompt[1], place: 'embedding', prompt: true },
    ],
    [
      changed((entry) => (of1(entry) && 'token' in entry && token++ === 2 ? { ...entry, logits: '00000000' } : entry)),
      { what: 'logits', position: prompt.length + 1, token: tokens[1]!.token, place: 'projection', prompt: false },
    ],
    [
      changed((entry) =>
        of1(entry) && 'token' in entry && entry.token === tokens[0]!.token ? { ...entry, token: 5 } : entry,
      ),
      { what: 'token', position: prompt.length, token: 5, found: tokens[0]!.token, place: 'sampling', prompt: false },
    ],
  ] as const) {
    const { equal, requests } = await replay(text);
    assert.equal(equal, false);
    assert.deepEqual(
      requests.map(({ difference }) => difference),
      [undefined, expected, undefined],
    );
  }
});

test('a request with functions of a program is not replayed; options that are no longer valid are named', async () => {
  const entries: Entry[] = [];
  const record = new Recording((entry) => entries.push(entry));
  const model = await load(undefined, { inline: true, record });
  await model.complete('One day', { maxTokens: 3, logitsProcessor: () => {} });
  await model.complete('One day', { maxTokens: 3, logitBias: new Map([[5, -Infinity]]), stopTokenIds: [7] });
  await model.dispose();
  const { equal, requests } = await replay(linesOf(entries));
  assert.equal(equal, true);
  assert.deepEqual(
    requests.map(({ skipped, logits }) => [skipped, logits]),
    [
      ['its logitsProcessor came from a program', 0],
      [undefined, 3],
    ],
  );
  const wrong = entriesOf(lines).map((entry) => ('prompt' in entry ? { ...entry, options: { topP: 7 } } : entry));
  await assert.rejects(
    replay(linesOf(wrong as unknown as Entry[])),
    /^FormatError: run.jsonl: request 0: topP must be/,
  );
  await assert.rejects(load(undefined, { record: {} as Recording }), OptionError);
  await assert.rejects(load(undefined, { record: new Recording(() => {}), taps: 'hidden' }), /taps must be left out/);
});

test('a file has what was recorded, line by line', async (t) => {
  const path = await folder(t);
  const record = recordToFile(join(path, 'run.jsonl'), '');
  const model = await load(undefined, { inline: true, record });
  await model.complete('One day', { maxTokens: 3, seed: 1 });
  await model.dispose();
  assert.equal((await readdir(path)).includes('run.jsonl'), false);
  record.end();
  assert.deepEqual(await readdir(path), ['run.jsonl']);
  assert.equal((await replay(await readFile(join(path, 'run.jsonl'), 'utf8'))).equal, true);
  assert.throws(() => recordToFile(join(path, 'none', 'x')), LanewiseError);
});

test('a recording that was cut off replays as far as it goes', async () => {
  const part = lines.split('\n').slice(0, -12).join('\n');
  const { equal, requests } = await replay(part);
  assert.equal(equal, true);
  assert.ok(requests.some(({ logits }) => logits > 0 && logits < 20));
});

test('files that are no recordings are refused, with the line', () => {
  const [head, first] = entriesOf(lines);
  const text = (...entries: object[]): string => entries.map((entry) => JSON.stringify(entry)).join('\n');
  const rows = { request: 0, at: 0, rows: ['00'.repeat(4 * (LAYERS + 1))] };
  for (const [content, message] of [
    ['', 'line 1: expected a recording, whose first line describes the model, found nothing'],
    ['{"a":', 'line 1: expected a JSON object, found "{\\"a\\":"'],
    ['[]', 'line 1: expected a JSON object, found []'],
    ['{"recording":"x"}', 'line 1: expected a recording of lanewise, found "x"'],
    [text({ ...head, version: 2 }), 'expected version 1, found 2; record again'],
    [text({ ...head, model: 5 }), 'line 1: expected model to be an object, found 5'],
    [text({ ...head, states: 'all' }), 'line 1: expected states to be an array of names, found "all"'],
    [
      text({ ...head, plan: { weights: { a: 1 } } }),
      'line 1: expected plan.weights to be an object of storages, found {"a":1}',
    ],
    [text(head!, { request: 1, prompt: [1] }), 'line 2: expected request to be 0, the next one, found 1'],
    [text(head!, { ...first, prompt: [4096] }), 'line 2: expected prompt to be token ids from 0 to 4095, found [4096]'],
    [text(head!, { ...first, prompt: [0.5] }), 'line 2: expected prompt to be token ids from 0 to 4095, found [0.5]'],
    [
      text(head!, first!, { ...rows, request: 1 }),
      'line 3: expected request to be the number of a request before, from 0 to 0, found 1',
    ],
    [text(head!, first!, { ...rows, at: -1 }), 'line 3: expected at to be an integer of 0 or more, found -1'],
    [
      text(head!, first!, { ...rows, rows: ['ab'] }),
      `line 3: expected rows to be rows of ${LAYERS + 1} checksums, found ["ab"]`,
    ],
    [text(head!, first!, { request: 0, token: 1, logprob: 'x' }), 'line 3: expected logprob to be a number, found "x"'],
    [text(head!, first!, { request: 0 }), 'line 3: expected end to be the reason of the end, found nothing'],
  ] as const) {
    assert.throws(
      () => parseRecording(content, 'run.jsonl'),
      (error) => error instanceof FormatError && assert.equal(error.message, `run.jsonl: ${message}`) === undefined,
    );
  }
});

test('any change of a file is a FormatError or another recording, never another error', () => {
  fc.assert(
    fc.property(fc.nat(lines.length - 1), fc.nat(lines.length - 1), fc.string(), (a, b, put) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b)];
      try {
        parseRecording(lines.slice(0, from) + put + lines.slice(to), 'run.jsonl');
      } catch (error) {
        assert.ok(error instanceof FormatError, String(error));
      }
    }),
    { numRuns: 300 },
  );
});
