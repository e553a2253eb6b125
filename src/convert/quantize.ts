/** Plans the conversion of a model to another file format or to other tensor types. */

import { readModules } from '../embedding/modules.ts';
import { ggufPoolings } from '../embedding/pooling.ts';
import { addedEnds, endEntries, endTokens, readEnds } from '../engine/end-tokens.ts';
import { comparesHead, findGguf, readFactors } from '../engine/open.ts';
import { tokenizerBeside } from '../engine/tokenizer.ts';
import { composeVocabulary, readSidecarTexts, readVocabularyFiles } from '../engine/tokenizer-source.ts';
import { ModelError, OptionError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { type CheckpointTensor, openCheckpoint, readJson, readText } from '../formats/checkpoint.ts';
import { firstPart, openGguf } from '../formats/gguf.ts';
import type { GgufMetadata, GgufValue } from '../formats/gguf-types.ts';
import { viewTensor } from '../formats/views.ts';
import { type GgufTensors, ggufModel } from '../models/gguf.ts';
import type { Settings } from '../models/gguf-family.ts';
import { weightsByTensor } from '../models/gguf-weights.ts';
import { ggufFromHub } from '../models/gguf-write.ts';
import { type Decision, decide, isPlan, names, parseQuantize, type StorageChoice } from '../models/policy.ts';
import type { Quantize } from '../models/storage-plan.ts';
import type { WeightRole } from '../plan/step.ts';
import { weightType, weightTypes } from '../quant/ggml.ts';
import { type GgufVocabulary, ggufVocabulary, tokenTypes } from '../tokenizer/gguf-vocabulary.ts';
import { loadTokenizer } from '../tokenizer/load.ts';
import { roleKeys } from '../tokenizer/sidecars.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { loadComposed, tokenizerJsonOf } from '../tokenizer/vocabulary-files.ts';
import type { Recipe, WritableType } from './convert.ts';

export interface QuantizeOptions {
  /** Type of the matrices. */
  readonly to: WritableType;
  /** Storage policy of the linear layers, or a plan for GGUF; layers without a decision become `to`. */
  readonly policy?: Quantize;
  readonly format: 'gguf' | 'safetensors';
}

/** A model file to write: its tensors and metadata. */
export interface ModelFile {
  readonly recipes: readonly Recipe[];
  /** Metadata of a GGUF file; empty for SafeTensors. */
  readonly metadata: GgufMetadata;
  /** Contents of the text files that belong beside a SafeTensors file, by file name. */
  readonly beside: ReadonlyMap<string, string>;
  /** Data that the new file lacks. */
  readonly warnings: readonly string[];
  /** Names in plans of the weights of each tensor; only if a plan was given. */
  readonly weights: ReadonlyMap<string, readonly string[]>;
  close(): Promise<void>;
}

/** Values of `general.file_type` in llama.cpp. */
const fileTypes: Readonly<Record<WritableType, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q8_0: 7,
  q4_k: 14,
  q5_k: 16,
  q6_k: 18,
  iq4_nl: 25,
  bf16: 32,
};

/** Opens the model's files, which `close` of the result closes. @throws FormatError, ModelError, OptionError */
export async function planQuantization(
  folder: FileFolder,
  file: string | undefined,
  options: QuantizeOptions,
): Promise<ModelFile> {
  const policy = options.policy === undefined ? undefined : parseQuantize(options.policy, 'policy');
  if (policy && isPlan(policy) && options.format === 'safetensors')
    throw new OptionError('policy', 'a policy: only .gguf files are written by a plan', policy.name ?? 'a plan');
  const gguf = file?.endsWith('.gguf') ? firstPart(file) : file === undefined ? await findGguf(folder) : undefined;
  if (gguf !== undefined) return fromGguf(folder, gguf, options, policy);
  return fromSafeTensors(folder, file, options, policy);
}

/** Decides the new type of a tensor; undefined: unchanged. */
type Choose = (name: string, shape: readonly number[], stored: string) => Pick<Recipe, 'to' | 'reason'>;

/** What the choice for a tensor of a GGUF file depends on besides the tensor. */
interface Whole {
  /** Whether the embedding is the output head too. */
  readonly tied: boolean;
  /** Names of a tensor's weights in plans. */
  readonly weights: ReadonlyMap<string, readonly string[]>;
}

const sameType =
  (to: WritableType): Choose =>
  (_, __, stored) =>
    weightType(stored) === undefined
      ? { to: undefined, reason: `${stored} is not converted` }
      : { to, reason: `all tensors ${to}` };

/** Chooses for the tensors of a GGUF file, by their names there. */
const ggufTypes =
  (to: WritableType, policy: StorageChoice | undefined, whole: Whole): Choose =>
  (name, shape, stored) => {
    if (weightType(stored) === undefined) return { to: undefined, reason: `${stored} is not converted` };
    if (shape.length < 2) return { to: 'f32', reason: 'vectors stay in f32' };
    if (!/\.weight$/.test(name) || /(^position_embd|^token_types|_norm|\.ffn_gate_inp)\./.test(name)) {
      return { to: 'f32', reason: 'not a linear layer: llama.cpp expects f32' };
    }
    const inputs = shape.at(-1)!;
    const wanted = decisionOf(name, shape, to, policy, whole) ?? { storage: to, reason: `all matrices ${to}` };
    const { block } = weightTypes[wanted.storage];
    if (inputs % block === 0) return { to: wanted.storage, reason: wanted.reason };
    const instead = inputs % weightTypes.q8_0.block === 0 ? 'q8_0' : 'f16';
    return { to: instead, reason: `in ${inputs} is not a multiple of ${block}` };
  };

/** What a policy or plan says of a tensor. Of weights in one tensor the largest storage counts. */
function decisionOf(
  name: string,
  shape: readonly number[],
  to: WritableType,
  policy: StorageChoice | undefined,
  { tied, weights }: Whole,
): Decision | undefined {
  if (policy === undefined) return undefined;
  const matrix = { shape: [shape.at(-2)!, shape.at(-1)!] as const, stored: to };
  if (!isPlan(policy)) {
    const named = roleOf(name);
    const role = named === 'embedding' && tied && names(policy, 'output', 'output') ? 'output' : named;
    return role && decide(policy, { ...matrix, name, role });
  }
  const decisions = (weights.get(name) ?? [])
    .filter((weight) => names(policy, weight, 'ffn'))
    .map((weight) => decide(policy, { ...matrix, name: weight, role: 'ffn' }));
  return decisions.sort((a, b) => bitsOf(b.storage) - bitsOf(a.storage))[0];
}

const weightsOf = (file: GgufTensors, policy: StorageChoice | undefined): Whole['weights'] =>
  policy && isPlan(policy) ? weightsByTensor(file, policy) : new Map();

const bitsOf = (storage: WritableType): number => weightTypes[storage].bytes / weightTypes[storage].block;

/** Whether the embedding is the output head too: a decoder whose file has no `output.weight`. */
function isTied(metadata: GgufMetadata, names: Iterable<string>): boolean {
  const architecture = metadata.get('general.architecture')?.value;
  return metadata.get(`${architecture}.attention.causal`)?.value !== false && ![...names].includes('output.weight');
}

function roleOf(name: string): WeightRole | undefined {
  if (name.startsWith('token_embd')) return 'embedding';
  if (name.startsWith('output.')) return 'output';
  if (/\.attn_/.test(name)) return 'attention';
  return /\.ffn_/.test(name) ? 'ffn' : undefined;
}

async function fromGguf(
  folder: FileFolder,
  file: string,
  options: QuantizeOptions,
  policy: StorageChoice | undefined,
): Promise<ModelFile> {
  const checkpoint = await openGguf(folder, file);
  const close = (): Promise<void> => checkpoint.close();
  try {
    const { tensors } = checkpoint;
    const name = `${folder.name}/${file}`;
    const ropeFactors = await readFactors(checkpoint);
    if (options.format === 'gguf') {
      const metadata = new Map([...checkpoint.metadata].filter(([key]) => !key.startsWith('split.')));
      const file = { name, metadata: checkpoint.metadata, tensors, ropeFactors };
      const whole = { tied: isTied(metadata, tensors.keys()), weights: weightsOf(file, policy) };
      const choose = ggufTypes(options.to, policy, whole);
      const recipes = [...tensors.values()].map((tensor) => ({
        ...plain(tensor.name, tensor),
        ...choose(tensor.name, tensor.shape, tensor.dtype),
      }));
      const { weights } = whole;
      return { recipes, metadata: withTypes(metadata, options), beside: new Map(), warnings: [], weights, close };
    }
    const model = ggufModel({ name, metadata: checkpoint.metadata, tensors, ropeFactors });
    const choose = sameType(options.to);
    const recipes = [...model.tensors].map(([name, { view, plus = 0, transposed = false }]): Recipe => {
      const source = viewTensor(name, tensors.get(view.source)!, view);
      const shape = transposed ? [...view.shape].reverse() : view.shape;
      return { ...plain(name, source), shape, transposed, plus: -plus, ...choose(name, shape, source.dtype) };
    });
    const warnings = ['the vocabulary and chat template of the GGUF file are not in the new one'];
    // The new folder has no tokenizer, from which `load` could find further end tokens by their text.
    const tokenizer = await tokenizerBeside(folder, { metadata: checkpoint.metadata, files: [file] }).catch(
      () => undefined,
    );
    const vocab = Number(model.config.vocab_size);
    const ends = endTokens({ config: model.config, metadata: checkpoint.metadata, tokenizer, vocab });
    const generation = { bos_token_id: model.config.bos_token_id, eos_token_id: ends };
    const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
    const beside = new Map([
      ['config.json', json({ ...model.config, eos_token_id: ends })],
      ['generation_config.json', json(generation)],
    ]);
    return { recipes, metadata: new Map(), beside, warnings, weights: new Map(), close };
  } catch (error) {
    await close();
    throw error;
  }
}

const plain = (name: string, source: CheckpointTensor): Omit<Recipe, 'to' | 'reason'> => ({
  name,
  shape: source.shape,
  sources: [source],
  transposed: false,
  plus: 0,
});

async function fromSafeTensors(
  folder: FileFolder,
  file: string | undefined,
  options: QuantizeOptions,
  policy: StorageChoice | undefined,
): Promise<ModelFile> {
  const checkpoint = await openCheckpoint(folder, file);
  const close = (): Promise<void> => checkpoint.close();
  try {
    const { tensors } = checkpoint;
    if (options.format === 'safetensors') {
      const choose = sameType(options.to);
      const recipes = [...tensors.values()].map((tensor) => ({
        ...plain(tensor.name, tensor),
        ...choose(tensor.name, tensor.shape, tensor.dtype),
      }));
      return { recipes, metadata: new Map(), beside: await textsOf(folder), warnings: [], weights: new Map(), close };
    }
    const config = (await readJson(folder, 'config.json')) as Settings | undefined;
    if (config === undefined) {
      throw new ModelError('NoConfig', `${folder.name}: expected a config.json beside the weights, found none`);
    }
    const written = ggufFromHub({ config, tensors, headDiffers: await comparesHead(config, checkpoint) });
    const { metadata, warnings } = await withVocabulary(
      folder,
      await withPooling(folder, written.metadata),
      written.tensors,
      config,
    );
    const shapes = written.tensors.map(({ name, shape }) => [name, { dtype: 'F32', shape }] as const);
    const factors = written.tensors.flatMap(({ name, values }) => (values ? [[name, values] as const] : []));
    const made = { name: folder.name, metadata, tensors: new Map(shapes), ropeFactors: new Map(factors) };
    const whole = { tied: isTied(metadata, made.tensors.keys()), weights: weightsOf(made, policy) };
    const choose = ggufTypes(options.to, policy, whole);
    const recipes = written.tensors.map((output): Recipe => {
      const sources = output.sources.map((name) => {
        const tensor = tensors.get(name)!;
        return viewTensor(name, tensor, { source: name, shape: tensor.shape, firstRow: 0, rows: output.rows });
      });
      const choice = output.values
        ? ({ to: 'f32', reason: 'vectors stay in f32' } as const)
        : choose(output.name, output.shape, sources[0]!.dtype);
      return { ...output, sources, ...choice };
    });
    const all = [...written.warnings, ...warnings];
    const { weights } = whole;
    return { recipes, metadata: withTypes(metadata, options), beside: new Map(), warnings: all, weights, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Text files that a model needs beside its weights. */
const companions = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'vocab.txt',
  'tekken.json',
  'chat_template.jinja',
];

async function textsOf(folder: FileFolder): Promise<Map<string, string>> {
  const texts = new Map<string, string>();
  for (const name of companions) {
    const text = await readText(folder, name);
    if (text !== undefined) texts.set(name, text);
  }
  return texts;
}

function withTypes(metadata: ReadonlyMap<string, GgufValue>, { to }: QuantizeOptions): GgufMetadata {
  const out = new Map(metadata);
  out.set('general.file_type', { type: 'uint32', value: fileTypes[to] });
  if (weightTypes[to].block > 1) out.set('general.quantization_version', { type: 'uint32', value: 2 });
  return out;
}

/** Adds an encoder's pooling to the metadata. @throws ModelError for pooling that GGUF cannot express */
async function withPooling(folder: FileFolder, metadata: GgufMetadata): Promise<GgufMetadata> {
  const architecture = metadata.get('general.architecture')?.value;
  if (metadata.get(`${architecture}.attention.causal`)?.value !== false) return metadata;
  const read = await readModules(folder, Number(metadata.get(`${architecture}.embedding_length`)?.value));
  if (read instanceof ModelError) throw read;
  const value = read.poolings.length === 1 ? ggufPoolings[read.poolings[0]!] : undefined;
  if (value === undefined || read.modules.length > 0) {
    const what = 'expected pooling by mean, cls or last and no further modules, as GGUF has no keys for others, found';
    const found = read.modules.length > 0 ? 'modules after the pooling' : read.poolings.join(' and ');
    throw new ModelError('UnsupportedPooling', `${folder.name}/modules.json: ${what} ${found}; write .safetensors`);
  }
  return new Map([...metadata, [`${architecture}.pooling_type`, { type: 'uint32', value }]]);
}

async function withVocabulary(
  folder: FileFolder,
  metadata: GgufMetadata,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
  config: Settings,
): Promise<{ metadata: GgufMetadata; warnings: readonly string[] }> {
  const out = new Map(metadata);
  out.set('general.name', { type: 'string', value: folder.name.split(/[\\/]/).at(-1)! });
  const found = await writableTokenizer(folder);
  if (found === undefined) {
    const what = 'expected tokenizer.json, vocab.json with merges.txt, or vocab.txt, found none';
    return { metadata: out, warnings: [`${what}: the file gets no vocabulary`] };
  }
  const { json, words, settings } = found;
  const vocab = tensors.find(({ name }) => name === 'token_embd.weight')!.shape[0]!;
  const vocabulary = ggufVocabulary(json, settings, vocab);
  const template = (await readText(folder, 'chat_template.jinja')) ?? vocabulary.chatTemplate;
  const ends = endTokens({ config, ...(await readEnds(folder)), tokenizer: words, vocab });
  for (const id of addedEnds(words)) if (id < vocab) vocabulary.types[id] = tokenTypes.control;
  for (const [key, value] of vocabularyEntries(vocabulary)) out.set(`tokenizer.ggml.${key}`, value);
  if (vocabulary.model !== 'bert') {
    const entries = endEntries(ends, vocabulary.ids.eos, (id) => words.token(id));
    for (const [key, value] of entries) out.set(`tokenizer.ggml.${key}`, value);
  }
  if (template !== undefined) out.set('tokenizer.chat_template', { type: 'string', value: template });
  return { metadata: out, warnings: vocabulary.warnings };
}

/** The tokenizer as texts of tokenizer.json (`json`) and tokenizer_config.json (`settings`); undefined if there is none. */
async function writableTokenizer(
  folder: FileFolder,
): Promise<{ json: string; words: Tokenizer; settings: string } | undefined> {
  const sidecars = await readSidecarTexts(folder);
  const given = await readText(folder, 'tokenizer.json');
  const files = given === undefined ? await readVocabularyFiles(folder) : undefined;
  const composed = files && composeVocabulary(files);
  if (given === undefined && composed === undefined) return undefined;
  const words = composed
    ? loadComposed(composed)
    : loadTokenizer({ tokenizerJson: given!, sidecars, name: folder.name });
  const json = composed ? tokenizerJsonOf(composed, words) : given!;
  const { specialTokensMap = '{}', tokenizerConfig = '{}' } = sidecars;
  const roles = Object.fromEntries(
    roleKeys.flatMap(([role, key]) => {
      const token = words.role(role);
      return token ? [[key, token.text]] : [];
    }),
  );
  const settings = { ...JSON.parse(specialTokensMap), ...JSON.parse(tokenizerConfig), ...roles };
  return { json, words, settings: JSON.stringify(settings) };
}

function* vocabularyEntries(vocabulary: GgufVocabulary): Generator<readonly [string, GgufValue]> {
  const { model, pre, tokens, types, merges, scores, ids, addBos, addSpacePrefix } = vocabulary;
  yield ['model', { type: 'string', value: model }];
  yield ['pre', { type: 'string', value: pre }];
  yield ['tokens', { type: 'array', of: 'string', value: tokens }];
  yield ['token_type', { type: 'array', of: 'int32', value: types }];
  if (merges) yield ['merges', { type: 'array', of: 'string', value: merges }];
  if (scores) yield ['scores', { type: 'array', of: 'float32', value: scores }];
  for (const [role, value] of Object.entries(ids)) yield [`${role}_token_id`, { type: 'uint32', value }];
  yield ['add_bos_token', { type: 'bool', value: addBos }];
  if (addSpacePrefix !== undefined) yield ['add_space_prefix', { type: 'bool', value: addSpacePrefix }];
}
