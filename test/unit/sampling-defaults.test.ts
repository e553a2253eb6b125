/** Defaults of sampling: from the files of a model, else the library's; options win. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  describeSampling,
  fromGeneration,
  generationRules,
  readSamplingDefaults,
} from '../../src/engine/sampling-defaults.ts';
import type { FileFolder } from '../../src/formats/bytes.ts';
import type { GgufMetadata, GgufValue } from '../../src/formats/gguf-types.ts';
import { load } from '../../src/node.ts';
import type { Constraint } from '../../src/sampling/constraint.ts';
import { librarySampling } from '../../src/sampling/sampling-options.ts';
import { validateGenerate } from '../../src/schedule/generation-options.ts';

const nowhere = { name: 'nowhere', open: async () => undefined } as unknown as FileFolder;

/** Values, and what was said about the file. */
function read(json: unknown): { values: Record<string, number>; sources: string[]; warnings: string[] } {
  const warnings: string[] = [];
  const defaults = fromGeneration(json, (text) => warnings.push(text));
  const values = Object.fromEntries(Object.entries(defaults).map(([key, { value }]) => [key, value]));
  return { values, sources: Object.values(defaults).map(({ from }) => from), warnings };
}

test('without a file, or with one that says nothing of sampling, the library decides', () => {
  for (const json of [
    undefined,
    null,
    {},
    [],
    'x',
    { eos_token_id: 3, transformers_version: '4.50.0' },
    { do_sample: true },
  ]) {
    const { values, sources, warnings } = read(json);
    assert.deepEqual(values, librarySampling);
    assert.deepEqual([...new Set(sources), ...warnings], ['library']);
  }
});

test('what the file says counts, and is named', () => {
  const { values, sources, warnings } = read({
    do_sample: true,
    temperature: 0.6,
    top_k: 20,
    top_p: 0.95,
    min_p: 0.05,
    repetition_penalty: 1.05,
  });
  assert.deepEqual(values, { temperature: 0.6, topK: 20, topP: 0.95, minP: 0.05, repetitionPenalty: 1.05 });
  assert.deepEqual(sources[0], 'generation_config.json, temperature');
  assert.deepEqual(warnings, []);
  // Values without do_sample are meant to be used.
  assert.equal(read({ temperature: 0.6 }).values.temperature, 0.6);
  // transformers takes the most probable tokens then, and no notice of the temperature.
  assert.equal(read({ do_sample: false, temperature: 0.6 }).values.temperature, 0);
  assert.equal(read({ do_sample: false }).sources[0], 'generation_config.json, do_sample');
  assert.equal(read({ temperature: 0 }).values.temperature, 0);
  assert.equal(read({ top_k: -1 }).values.topK, -1);
});

test('invalid values are ignored with a warning that names the field', () => {
  const bad: Readonly<Record<string, readonly unknown[]>> = {
    temperature: [Number.NaN, Number.POSITIVE_INFINITY, -1, '0.7', [0.7], null, {}, true],
    top_k: [1.5, 1e300, 2 ** 40, -2, '5', null, Number.NaN],
    top_p: [0, 1.1, -0.5, '0.9', null, [1], Number.NaN],
    min_p: [-0.1, 2, 'x', null],
    repetition_penalty: [0, -1, Number.POSITIVE_INFINITY, null, []],
    do_sample: ['false', 0, null],
  };
  for (const [name, list] of Object.entries(bad)) {
    for (const value of list) {
      const { values, warnings } = read({ [name]: value });
      assert.deepEqual(values, librarySampling, `${name} ${value}`);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, new RegExp(`^generation_config\\.json: ${name} must be .*, found .*; ignored$`));
    }
  }
  const polluted = JSON.parse('{"__proto__": {"temperature": 0.1}}') as unknown;
  assert.deepEqual(read(polluted).values, librarySampling);
});

test('GGUF files have them in their metadata', async () => {
  const entry = (type: string, value: unknown): GgufValue => ({ type, value }) as GgufValue;
  const metadata: GgufMetadata = new Map([
    ['general.sampling.temp', entry('float32', Math.fround(0.7))],
    ['general.sampling.top_k', entry('int32', 20)],
    ['general.sampling.top_p', entry('float32', Math.fround(0.8))],
    ['general.sampling.min_p', entry('string', '0.1')],
    ['general.sampling.penalty_repeat', entry('float32', Number.NaN)],
    ['general.sampling.mirostat', entry('int32', 2)],
  ]);
  const warnings: string[] = [];
  const defaults = await readSamplingDefaults(nowhere, metadata, (text) => warnings.push(text));
  assert.deepEqual(
    Object.values(defaults).map(({ value }) => value),
    [0.7, 20, 0.8, 0, 1],
  );
  assert.equal(defaults.topK.from, 'GGUF metadata, general.sampling.top_k');
  assert.deepEqual(
    warnings.map((text) => text.split(' must')[0]),
    ['GGUF metadata: general.sampling.min_p', 'GGUF metadata: general.sampling.penalty_repeat'],
  );
  assert.equal(
    describeSampling(defaults),
    'temperature 0.7, top-k 20, top-p 0.8 (GGUF metadata); min-p 0, repetition-penalty 1 (library)',
  );
  assert.equal((await readSamplingDefaults(nowhere, undefined)).temperature.value, 0.8);
});

test('options win, one by one', () => {
  const samplingDefaults = fromGeneration({ temperature: 0.6, top_k: 20, repetition_penalty: 1.2 });
  const rules = generationRules({ description: { config: { vocab: 100 } }, samplingDefaults });
  const { temperature, topK, topP, repetitionPenalty } = validateGenerate({ temperature: 0, topK: undefined }, rules);
  assert.deepEqual([temperature, topK, topP, repetitionPenalty], [0, 20, 1, 1.2]);
  assert.equal(validateGenerate({ topK: 0 }, rules).topK, 0);
  assert.equal(
    validateGenerate(
      {},
      generationRules({ description: { config: { vocab: 9 } }, samplingDefaults: fromGeneration({ top_k: -1 }) }),
    ).topK,
    0,
  );
});

test('a constraint serves one text; a function makes one for each', async () => {
  const model = await load(fileURLToPath(new URL('../golden/models/qwen2', import.meta.url)), { inline: true });
  try {
    // Each token once, in the order of its text.
    const constraint = (): Constraint => {
      let next = 10;
      return { allowed: (mask) => mask.fill(0).set([1 << next], 0), accept: () => void next++ };
    };
    const prompts = [{ tokenIds: [5, 6] }, { tokenIds: [7] }];
    const options = { maxTokens: 4, ignoreEos: true };
    const results = await model.generateBatch(prompts, { ...options, n: 2, constraint });
    assert.equal(results.length, 4);
    for (const { tokenIds } of results) assert.deepEqual(tokenIds, [10, 11, 12, 13]);
    const shared = { ...options, constraint: constraint() };
    assert.deepEqual((await model.complete(prompts[0]!, shared)).tokenIds, [10, 11, 12, 13]);
    for (const several of [
      { prompts, options: shared },
      { prompts: [prompts[0]!], options: { ...shared, n: 2 } },
    ])
      await assert.rejects(async () => model.generateBatch(several.prompts, several.options), {
        code: 'InvalidOption',
        option: 'constraint',
      });
  } finally {
    await model.dispose();
  }
});

test('a model generates as its folder says, hosted or inline', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-'));
  t.after(() => rm(folder, { recursive: true }));
  await cp(fileURLToPath(new URL('../golden/models/qwen2', import.meta.url)), folder, { recursive: true });
  await writeFile(path.join(folder, 'generation_config.json'), '{"do_sample": false, "top_p": "much"}');
  const prompt = { tokenIds: [5, 6, 7] };
  for (const inline of [true, false]) {
    const warnings: string[] = [];
    const model = await load(folder, { inline, onWarning: (text) => warnings.push(text) });
    try {
      assert.deepEqual(model.samplingDefaults.temperature, { value: 0, from: 'generation_config.json, do_sample' });
      const [asFile, greedy] = [{}, { temperature: 0 }].map((options) =>
        model.complete(prompt, { ...options, maxTokens: 8, ignoreEos: true }),
      );
      assert.deepEqual((await asFile)!.tokenIds, (await greedy)!.tokenIds);
      assert.deepEqual(
        warnings.filter((text) => text.includes('top_p')),
        ['generation_config.json: top_p must be a number in (0, 1], found much; ignored'],
      );
    } finally {
      await model.dispose();
    }
  }
});
