/**
 * Writes docs/models.md: `node tools/models-page.ts`. The model_types come from the registry, the golden cases from
 * test/golden, and the errors from running these. A test checks that the page is current.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { portable } from '../src/backend/wasm/choosing/choice.ts';
import { modelTypes } from '../src/models/index.ts';
import { partTypes, sameAs, textPart } from '../src/models/text-part.ts';
import { EncoderRunner, readGoldenTexts } from '../test/models/encoder-support.ts';
import { largestDifference, Runner, readGolden, wasm } from '../test/models/support.ts';

interface Family {
  readonly name: string;
  readonly types: readonly string[];
  /** Special features. */
  readonly special: string;
}

const families: readonly Family[] = [
  {
    name: 'GPT-2',
    types: ['gpt2'],
    special: 'learned positions; fused q/k/v stored [in, out]; tied head; score scale by layer',
  },
  {
    name: 'Llama 1 to 3',
    types: ['llama'],
    special: 'grouped heads; rope: linear, llama3, yarn, longrope; biases',
  },
  { name: 'Mistral', types: ['mistral'], special: 'Llama with a sliding window' },
  {
    name: 'Ministral 3',
    types: ['ministral3'],
    special: 'Mistral with yarn; queries scaled by the logarithm of their position',
  },
  { name: 'Mixtral', types: ['mixtral'], special: 'Mistral with eight experts, two per row' },
  { name: 'Qwen 2 and 2.5', types: ['qwen2'], special: 'biases on q, k, v; window from layer max_window_layers on' },
  { name: 'Qwen 3', types: ['qwen3'], special: 'norms over the heads of q and k; independent head_dim' },
  { name: 'Qwen 3 MoE', types: ['qwen3_moe'], special: 'Qwen 3 with experts in most layers' },
  { name: 'SmolLM 3', types: ['smollm3'], special: 'layers without rope' },
  {
    name: 'Granite 3',
    types: ['granite'],
    special: 'multipliers on embedding, attention, residual and logits',
  },
  { name: 'OLMo 2', types: ['olmo2'], special: 'norms after each block, and over all of q and of k' },
  {
    name: 'Phi-3 and 4',
    types: ['phi3'],
    special: 'fused q/k/v and gate/up; window; longrope; part of each head rotated',
  },
  {
    name: 'Phi-1 to 2',
    types: ['phi'],
    special: 'layer norms; parallel blocks after one norm; half of each head rotated',
  },
  {
    name: 'GPT-NeoX, Pythia',
    types: ['gpt_neox'],
    special: 'q, k and v fused head by head; parallel blocks with two norms; quarter of each head rotated',
  },
  {
    name: 'StableLM 2',
    types: ['stablelm'],
    special: 'layer norms; gated ffn; quarter of each head rotated; sequential or parallel blocks',
  },
  { name: 'StarCoder 2', types: ['starcoder2'], special: 'layer norms; window; biases; tied head' },
  {
    name: 'Falcon',
    types: ['falcon'],
    special:
      'RW: alibi in bfloat16; 7B: one key/value head, parallel blocks; 40B, 11B: grouped heads, two norms or one',
  },
  { name: 'Gemma', types: ['gemma'], special: '(1 + w) norms; scaled embedding; tanh gelu for any hidden_act' },
  {
    name: 'Gemma 2',
    types: ['gemma2'],
    special: 'norms around each block; soft caps on scores and logits; window in every other layer',
  },
  {
    name: 'Gemma 3, text',
    types: ['gemma3_text'],
    special: 'norms over heads; separate ropes for sliding and full attention; pattern of windows',
  },
  {
    name: 'Gemma 4, text',
    types: ['gemma4_text'],
    special:
      'inputs per layer; upper layers share the caches of lower ones; wide heads and proportional rope with full attention; value norms; ' +
      'keys as values; experts parallel to the dense ffn',
  },
];

const encoders: readonly Family[] = [
  { name: 'BERT', types: ['bert'], special: 'token types; learned positions; norms after each block' },
  { name: 'NomicBERT', types: ['nomic_bert'], special: 'BERT with rope, fused q/k/v and a gated ffn' },
  {
    name: 'ModernBERT',
    types: ['modernbert'],
    special:
      'norms before each block; gated ffn; full attention in every third layer, windows on both sides in the others, a rope for each kind',
  },
];

/** Golden cases by the model_type of their text part. */
function goldenCases(folder: string): Map<string, string[]> {
  const cases = new Map<string, string[]>();
  for (const name of existsSync(folder) ? readdirSync(folder).sort() : []) {
    const config = JSON.parse(readFileSync(path.join(folder, name, 'config.json'), 'utf8'));
    const { modelType } = textPart(config, modelTypes, 'config.json');
    cases.set(modelType, [...(cases.get(modelType) ?? []), name]);
  }
  return cases;
}

/** The largest error of a logit, which is the same on every machine. */
async function largestError(name: string): Promise<number> {
  const { inputs } = await readGolden(name);
  const runner = await Runner.open(name, wasm(1, portable));
  const errors: number[] = [];
  for (const { ids, tensors } of inputs)
    errors.push(largestDifference((await runner.run(ids, 64)).get('logits')!, tensors.get('logits')!));
  await runner.close();
  return Math.max(...errors);
}

/** The largest error of a value of the last hidden state. */
async function largestEncoderError(name: string): Promise<number> {
  const texts = await readGoldenTexts(name);
  const runner = await EncoderRunner.open(name, wasm(1, portable));
  const results = await runner.run(texts);
  await runner.close();
  const state = 'last_hidden_state';
  return Math.max(...texts.map(({ tensors }, n) => largestDifference(results[n]!.get(state)!, tensors.get(state)!)));
}

/** Rows of a table of families. */
async function table(
  rows: readonly Family[],
  folder: string,
  errorOf: (name: string) => Promise<number>,
): Promise<string> {
  const cases = goldenCases(folder);
  const lines: string[] = [];
  for (const { name, types, special } of rows) {
    const code = types.map((text) => `\`${text}\``).join(', ');
    const checked: string[] = [];
    for (const golden of types.flatMap((type) => cases.get(type) ?? []))
      checked.push(`${golden} (${(await errorOf(golden)).toExponential(0)})`);
    lines.push(`| ${name} | ${code} | ${special} | ${checked.join(', ')} |`);
  }
  return lines.join('\n');
}

/** @throws Error if a model_type of the registry has no row, or a row no model_type */
export async function modelsPage(root: string): Promise<string> {
  const named = [...families, ...encoders].flatMap(({ types }) => types);
  for (const type of modelTypes)
    if (!named.includes(type)) throw new Error(`tools/models-page.ts: write a row for the model_type ${type}`);
  for (const type of named)
    if (!modelTypes.includes(type)) throw new Error(`tools/models-page.ts: the registry has no model_type ${type}`);
  const folder = path.join(root, 'test/golden');
  const decoderRows = await table(families, path.join(folder, 'models'), largestError);
  const encoderRows = await table(encoders, path.join(folder, 'encoders'), largestEncoderError);
  return `${head}\n${decoderRows}\n\n${wrappers}\n${wrapperRows()}\n\n${encoderHead}\n${encoderRows}\n\n${tail}`;
}

const head = `# Models

Written by \`node tools/models-page.ts\` from the registry in [src/models/index.ts](../src/models/index.ts).

The architecture of a model is \`model_type\` of its config.json. Every case of the last column is a small model with random
weights and the results of transformers: hidden states after each layer, logits, and greedy text from prompts of several
lengths, checked on both backends and for any number of threads, kernel choice and chunk size
([test/models/golden.test.ts](../test/models/golden.test.ts)). After each case is the largest error of a logit (their standard
deviation is 3); two orders of summation in transformers itself differ by 4e-6 to 4e-5.

| family | model_type | what is special | golden cases |
|---|---|---|---|`;

const encoderHead = `## Encoders

Encoders turn texts into embeddings (\`lanewise embed\`, \`loadEncoder\`). A golden case has five texts, one of them a pair,
and their hidden states, checked alone and in one batch ([test/models/encoders.test.ts](../test/models/encoders.test.ts)).
After each case is the largest error of a value of the last hidden state.

| family | model_type | what is special | golden cases |
|---|---|---|---|`;

/** A list of aliases and whole models for each type that is loaded. */
function wrapperRows(): string {
  const rows = new Map<string, string[]>();
  const add = (type: string, name: string): void => void rows.set(type, [...(rows.get(type) ?? []), `\`${name}\``]);
  for (const [name, type] of Object.entries(sameAs)) add(type, name);
  for (const [type, wholes] of Object.entries(partTypes)) for (const whole of wholes) add(type, whole);
  return [...rows].map(([type, names]) => `- \`${type}\`: ${names.join(', ')}`).join('\n');
}

const wrappers = `## Models that also take images or sound

The text part of such a model is loaded, if its family is in the table above; input and output are text. The part is the
object \`text_config\`, \`llm_config\`, \`language_config\`, \`thinker_config\` or similar of config.json, possibly nested, or
another object with a known \`model_type\`; the suffix \`_text\` of a type is dropped. Absent settings have the defaults of
transformers for the type. An unknown type is named in the error.

The prefix of tensor names is found from the token embedding: \`language_model.model.\`, \`model.language_model.\`,
\`model.text_model.\`, \`thinker.model.\`, none, or any other, also in files of text models. Image towers, projectors and layers
that predict further tokens (MTP) are not used, with one notice. An unknown tensor of the text part itself is an error: it
belongs to another architecture.

These types are aliases of a known type, or have a text part of that type if it names none:
`;

const tail = `## Settings

Both styles of config are read: \`rope_theta\` with \`rope_scaling\`, and \`rope_parameters\`; a number or a list of end tokens.
An absent key has the default of transformers. If the file has an output head that differs from the embedding, it is used
even with \`tie_word_embeddings\`, with a notice. Unsupported settings are refused by name, with the value found and the known
ones: other rope types (\`dynamic\`), other activations, \`quantization_config\`.

Fused tensors (q/k/v, gate/up) are counted and quantized as the layers that they contain.

Gemma 4's table of layer inputs may be larger than one memory (E2B: 4.7 GB). Unless \`--quantize none\` is given, tables above
3.5 GiB are stored as q8_0; \`embedding=q4_0\` halves them.

## Windows and caches

With a window of W, a token attends to W keys, itself included. Windows limit what is computed; the cache keeps all keys.

## LongRoPE

Phi-3 models for long contexts have two sets of rope frequencies: one for sequences of up to
\`original_max_position_embeddings\` tokens, another for longer ones. When generated text crosses the limit, the keys and values
of the whole sequence are computed again with the other set: the next token takes as long as a prompt of that length, once.
The bits are those of a run that started with all tokens.
`;

if (import.meta.main) {
  const root = path.join(import.meta.dirname, '..');
  writeFileSync(path.join(root, 'docs/models.md'), await modelsPage(root));
}
