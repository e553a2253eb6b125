import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { Inspection } from '../../src/engine/inspect.ts';
import type { Model } from '../../src/engine/model.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import {
  embeddedModel,
  type LanewiseError,
  type LoadOptions,
  load,
  loadEncoder,
  OptionError,
  openChatTemplate,
  openTokenizer,
} from '../../src/node.ts';
import type { Prompt } from '../../src/prompts/prompt.ts';
import type { GenerateResult } from '../../src/schedule/events.ts';
import type { GenerateOptions } from '../../src/schedule/generation-options.ts';
import { wholeForward } from '../whole-forward.ts';

interface Expected {
  readonly cases: readonly { readonly prompt_ids: number[]; readonly ids: number[]; readonly margins: number[] }[];
}

async function generate(
  model: Model,
  prompt: Prompt,
  options: GenerateOptions,
): Promise<GenerateResult & { streamed: string }> {
  let streamed = '';
  for await (const event of model.generate(prompt, options)) {
    if (event.type === 'token' || event.type === 'text') streamed += event.text;
    if (event.type === 'done') return { ...event, streamed };
  }
  throw new Error('no done event');
}

async function withModel(options: LoadOptions, body: (model: Model) => Promise<void>): Promise<void> {
  const model = await load(undefined, { inline: true, ...options });
  try {
    await body(model);
  } finally {
    await model.dispose();
  }
}

const greedy = { temperature: 0 } as const;
const prompt = 'Once upon a time';

for (const options of [{ threads: 1 }, { threads: 2 }, { backend: 'reference' }] as LoadOptions[]) {
  test(`greedy text of the embedded model is that of transformers: ${JSON.stringify(options)}`, async () => {
    const { cases } = JSON.parse(await readFile(`${embeddedModel}/expected.json`, 'utf8')) as Expected;
    await withModel({ ...options, quantize: 'none' }, async (model) => {
      for (const { prompt_ids, ids: all, margins } of options.backend ? cases.slice(0, 1) : cases) {
        // From a margin near zero on, another order of summation may choose the other token.
        const near = margins.findIndex((margin) => margin < 1e-3);
        const ids = all.slice(0, near < 0 ? all.length : near);
        const count = options.backend ? 12 : ids.length;
        const { tokenIds } = await generate(
          model,
          { tokenIds: prompt_ids },
          { ...greedy, maxTokens: count, ignoreEos: true },
        );
        assert.deepEqual(tokenIds, ids.slice(0, count));
      }
    });
  });
}

test('kernels of either width give the same bits, and models say which they have', async () => {
  const logits: Float32Array[] = [];
  for (const revectorize of [true, false]) {
    await withModel({ revectorize, threads: 2 }, async (model) => {
      assert.equal(model.vectorBits, revectorize && nodeHost().widens ? 256 : 128);
      logits.push((await wholeForward(model, [1, 2, 3, 5, 8, 13, 21])).get('logits')!.values);
    });
  }
  assert.deepEqual(logits[0], logits[1]);
  await assert.rejects(load(undefined, { revectorize: 'no' as unknown as boolean }), OptionError);
});

test('generation: limits, stops, seeds, batches', async () => {
  await withModel({}, async (model) => {
    const plain = await generate(model, prompt, { ...greedy, maxTokens: 30 });
    assert.equal(plain.finishReason, 'length');
    assert.equal(plain.tokenIds.length, 30);
    assert.equal(plain.streamed, plain.text);
    assert.deepEqual(plain.usage, { promptTokens: plain.promptTokenIds.length, completionTokens: 30, cachedTokens: 0 });

    const word = plain.text.slice(20, 27);
    const stopped = await generate(model, prompt, { ...greedy, maxTokens: 30, stop: word });
    assert.equal(stopped.finishReason, 'stop');
    assert.equal(stopped.text, plain.text.slice(0, plain.text.indexOf(word)));
    assert.equal(stopped.streamed, stopped.text);

    const late = await generate(model, prompt, { ...greedy, timeoutMs: 1e-3, maxTokens: 30 });
    assert.equal(late.finishReason, 'timeout');
    assert.ok(late.tokenIds.length >= 1 && plain.text.startsWith(late.text));

    const sampled = { temperature: 0.9, topK: 40, topP: 0.95, seed: 7, maxTokens: 25 };
    const prompts = [prompt, 'The old wizard', 'One day, a little', 'A'.repeat(400)];
    const alone: number[][] = [];
    for (const text of prompts) alone.push([...(await generate(model, text, sampled)).tokenIds]);
    const together = await model.generateBatch(prompts, sampled);
    assert.deepEqual(
      together.map(({ tokenIds }) => [...tokenIds]),
      alone,
    );
    const atOnce = await Promise.all(prompts.map((text) => generate(model, text, sampled)));
    assert.deepEqual(
      atOnce.map(({ tokenIds }) => [...tokenIds]),
      alone,
    );
    assert.notDeepEqual([...(await generate(model, prompt, { ...sampled, seed: 8 })).tokenIds], alone[0]);
  });
});

test('a prompt spells control tokens only if it says so', async () => {
  await withModel({}, async (model) => {
    const end = model.tokenizer!.id('<|endoftext|>')!;
    const text = 'The end<|endoftext|>';
    assert.ok(!model.encode(text).includes(end));
    assert.ok(!model.encode({ text, parseSpecial: false }).includes(end));
    assert.equal(model.encode({ text, parseSpecial: true }).at(-1), end);
    const { promptTokenIds } = await generate(model, { text, parseSpecial: true }, { ...greedy, maxTokens: 1 });
    assert.equal(promptTokenIds.at(-1), end);
  });
});

test('a text ends with the context, a prompt beyond it is refused with both counts', async () => {
  await withModel({ contextLength: 20 }, async (model) => {
    const { promptTokenIds, tokenIds, finishReason } = await generate(model, prompt, { ...greedy, ignoreEos: true });
    assert.equal(finishReason, 'contextLength');
    assert.equal(promptTokenIds.length + tokenIds.length, 20);
    await assert.rejects(generate(model, { tokenIds: Array(21).fill(5) }, {}), (error: LanewiseError) => {
      assert.equal(error.code, 'ContextLengthExceeded');
      assert.match(error.message, /21 tokens.*holds 20/);
      return true;
    });
  });
});

test('an abort works before and during a generation, and the model remains usable', async () => {
  await withModel({}, async (model) => {
    await assert.rejects(generate(model, prompt, { signal: AbortSignal.abort() }), { name: 'AbortError' });
    const controller = new AbortController();
    const run = async (): Promise<void> => {
      for await (const event of model.generate(prompt, { ...greedy, signal: controller.signal }))
        if (event.type === 'token') controller.abort();
    };
    await assert.rejects(run(), { name: 'AbortError' });
    for await (const event of model.generate(prompt, greedy)) if (event.type === 'token') break;
    assert.equal((await generate(model, prompt, { ...greedy, maxTokens: 5 })).tokenIds.length, 5);
  });
});

test('a disposed model throws; disposing twice is allowed', async () => {
  const model = await load(undefined, { inline: true });
  await model.dispose();
  await model.dispose();
  assert.throws(() => model.generate(prompt), { code: 'Disposed' });
});

test('bad options are refused by name, NaN everywhere', async () => {
  await withModel({}, async (model) => {
    for (const name of [
      'temperature',
      'topK',
      'topP',
      'minP',
      'repetitionPenalty',
      'presencePenalty',
      'seed',
      'maxTokens',
      'timeoutMs',
      'logprobs',
    ] as const) {
      await assert.rejects(
        generate(model, prompt, { [name]: Number.NaN }),
        (error: OptionError) => error instanceof OptionError && error.option === name,
      );
    }
    await assert.rejects(generate(model, prompt, { topp: 1 } as GenerateOptions), OptionError);
    await assert.rejects(generate(model, { tokenIds: [4096] }, {}), OptionError);
    await assert.rejects(generate(model, { tokenIds: [] }, {}), OptionError);
    const wrong = [
      undefined,
      null,
      5,
      ['a'],
      {},
      { tokenIds: null },
      { tokenIds: '12' },
      { text: 7 },
      { messages: 'hi' },
    ];
    for (const bad of wrong as Prompt[]) {
      await assert.rejects(generate(model, bad, {}), OptionError, JSON.stringify(bad));
      await assert.rejects(model.generateBatch([bad]), OptionError, JSON.stringify(bad));
    }
    await assert.rejects(
      model.generateBatch('ab' as never),
      /prompts must be an array of at least one prompt, got "ab"/,
    );
    await assert.rejects(model.generateBatch(null as never), OptionError);
    await assert.rejects(generate(model, prompt, null as never), OptionError);
  });
  for (const options of [
    { threads: Number.NaN },
    { contextLength: 513 },
    { quantize: 'q9' },
    { backend: 'gpu' },
    { quantise: 'q8_0' },
  ]) {
    await assert.rejects(load(undefined, options as LoadOptions), OptionError);
  }
  await assert.rejects(load(undefined, null as never), /options must be an object, got null/);
  for (const path of [null, 5, {}]) {
    await assert.rejects(load(path as never), /path must be the path of a model/);
    await assert.rejects(loadEncoder(path as never), OptionError);
  }
});

test('forward gives logits of every row and hidden states, whatever the chunk', async () => {
  await withModel({ taps: 'hidden', quantize: 'none' }, async (model) => {
    const results = await wholeForward(
      model,
      Array.from({ length: 70 }, (_, i) => i + 10),
    );
    assert.deepEqual(results.get('logits')!.shape, [70, 4096]);
    assert.deepEqual(
      [...results.keys()].sort(),
      ['final', 'logits', ...Array.from({ length: 7 }, (_, i) => `hidden.${i}`)].sort(),
    );
    const short = await wholeForward(
      model,
      Array.from({ length: 3 }, (_, i) => i + 10),
    );
    assert.deepEqual(short.get('logits')!.values, results.get('logits')!.values.subarray(0, 3 * 4096));
  });
});

test('a bad tokenizer is an error for texts and a warning for token ids', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-engine-'));
  try {
    await cp(embeddedModel, folder, { recursive: true });
    await writeFile(
      path.join(folder, 'tokenizer.json'),
      '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
    );
    const warnings: string[] = [];
    const model = await load(folder, { inline: true, onWarning: (text) => warnings.push(text) });
    assert.match(warnings.join('\n'), /^.*tokenizer\.json.*texts will not work, token ids do$/);
    const { tokenIds } = await generate(model, { tokenIds: [5, 6, 7] }, { ...greedy, maxTokens: 3 });
    assert.equal(tokenIds.length, 3);
    assert.throws(
      () => model.encode('a text'),
      (error: LanewiseError) => error.code === 'InvalidTokenizer',
    );
    await model.dispose();
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('token ids beyond the model are refused in prompts and ignored as end tokens', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-engine-'));
  try {
    await cp(embeddedModel, folder, { recursive: true });
    const tokenizer = JSON.parse(await readFile(path.join(folder, 'tokenizer.json'), 'utf8'));
    tokenizer.added_tokens.push({ id: 4096, content: 'zebrafish', special: false });
    await writeFile(path.join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
    const ends = { eos_token_id: [1e99, -5, 1.5, 4096, 4095] };
    await writeFile(path.join(folder, 'generation_config.json'), JSON.stringify(ends));
    const warnings: string[] = [];
    await using model = await load(folder, { inline: true, onWarning: (text) => warnings.push(text) });
    assert.match(warnings.join('\n'), /^.*: the tokenizer has ids up to 4096, the model up to 4095$/);
    const message = /: the text has the token 4096 \("zebrafish"\), the model has 4096 tokens$/;
    const refusal = { name: 'TokenizerError', code: 'InvalidTokenizer', message };
    assert.throws(() => model.encode('a zebrafish'), refusal);
    assert.throws(() => model.encode({ text: 'a zebrafish', parseSpecial: true }), refusal);
    assert.throws(() => model.tokenizer!.encodePair('a', 'zebrafish'), refusal);
    assert.equal(model.tokenizer!.decode(model.encode(prompt)), prompt);
    assert.ok(model.eosTokenIds.has(4095));
    for (const id of [1e99, -5, 1.5, 4096]) assert.ok(!model.eosTokenIds.has(id), `${id}`);
    // One that no ordinary text needs, as Gemma 3 has for images, is worth no warning.
    tokenizer.added_tokens.at(-1).special = true;
    await writeFile(path.join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
    const quiet: string[] = [];
    await using other = await load(folder, { inline: true, onWarning: (text) => quiet.push(text) });
    assert.deepEqual(quiet, []);
    assert.ok(other.encode('a zebrafish').every((id) => id < 4096));
    assert.throws(() => other.encode({ text: 'a zebrafish', parseSpecial: true }), refusal);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('an error in the vocabulary of a GGUF file names the file', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-engine-'));
  try {
    const bytes = await readFile(new URL('../golden/gguf/llama-f32.gguf', import.meta.url));
    const key = 'tokenizer.ggml.model';
    // Behind the key: its type in 4 bytes, the length of the text in 8.
    bytes.write('other', bytes.indexOf(key) + key.length + 12);
    const file = path.join(folder, 'm.gguf');
    await writeFile(file, bytes);
    const message = `${file}: tokenizer.ggml.model: expected gpt2, llama, bert or t5, found "other"`;
    await assert.rejects(openTokenizer(file), { code: 'InvalidTokenizer', message });
    await assert.rejects(openTokenizer(folder), { code: 'InvalidTokenizer', message });
    await assert.rejects(openChatTemplate(file), { code: 'InvalidTokenizer', message });
    const warnings: string[] = [];
    await using _ = await load(file, { inline: true, onWarning: (text) => warnings.push(text) });
    assert.deepEqual(warnings, [`${message}; texts will not work, token ids do`]);
    await using inspection = await Inspection.open(nodeFolder(folder));
    assert.equal((inspection.tokenizer as LanewiseError).message, message);
  } finally {
    await rm(folder, { recursive: true });
  }
});
