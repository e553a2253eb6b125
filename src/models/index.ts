/** The registry of architectures, and building a plan from config.json and tensor shapes. */

import { OptionError } from '../errors.ts';
import { PlanBuilder } from '../plan/builder.ts';
import type { Plan, PlannedWeight } from '../plan/step.ts';
import type { KvStorage } from '../quant/kv-cache.ts';
import type { Architecture, ModelKind, ModelSizes } from './architecture.ts';
import { bert } from './bert.ts';
import { Config } from './config.ts';
import { falcon } from './falcon.ts';
import { STACKED } from './file-tensors.ts';
import { gemma } from './gemma.ts';
import { gemma2, gemma3 } from './gemma3.ts';
import { gemma4 } from './gemma4.ts';
import type { Settings } from './gguf-family.ts';
import { gptNeoX } from './gpt-neox.ts';
import { gpt2 } from './gpt2.ts';
import { granite } from './granite.ts';
import { llama } from './llama.ts';
import { ministral3 } from './ministral3.ts';
import { mistral } from './mistral.ts';
import { mixtral } from './mixtral.ts';
import { modernBert } from './modernbert.ts';
import { nomicBert } from './nomic-bert.ts';
import { olmo2 } from './olmo2.ts';
import { phi } from './phi.ts';
import { phi3 } from './phi3.ts';
import { defaultPolicy, isPlan, parsePolicy, type StorageChoice } from './policy.ts';
import { qwen2, qwen3 } from './qwen.ts';
import { qwen3Moe } from './qwen3-moe.ts';
import { smollm3 } from './smollm3.ts';
import { leftAside, spareTensors } from './spare-tensors.ts';
import { stablelm } from './stablelm.ts';
import { starcoder2 } from './starcoder2.ts';
import type { PlannedModel, StoragePlan } from './storage-plan.ts';
import { type NamedTensors, nameTensors, unchangedNames, usualRoot } from './tensor-names.ts';
import { type TextPart, textPart, withDefaults } from './text-part.ts';
import { Manifest, type ModelOrigin, type TensorShape } from './weights.ts';

/** By `model_type` of config.json. */
const architectures = {
  gpt2,
  llama,
  mistral,
  ministral3,
  mixtral,
  qwen2,
  qwen3,
  qwen3_moe: qwen3Moe,
  smollm3,
  granite,
  phi3,
  olmo2,
  gpt_neox: gptNeoX,
  phi,
  stablelm,
  starcoder2,
  falcon,
  gemma,
  gemma2,
  gemma3_text: gemma3,
  gemma4_text: gemma4,
  bert,
  nomic_bert: nomicBert,
  modernbert: modernBert,
} as const;

export const modelTypes: readonly string[] = Object.keys(architectures);
/** Types of encoders. */
export const encoderTypes: readonly string[] = modelTypes.filter(
  (type) =>
    (architectures[type as keyof typeof architectures] as Pick<Architecture<never, never>, 'kind'>).kind === 'encoder',
);

/**
 * The storage policy of a model in SafeTensors if none is asked for: an encoder's vectors are compared with those of other
 * programs, so its weights stay as the file has them.
 * @throws ModelError
 */
export function standardPolicy(config: unknown): string {
  const { modelType } = textPart(config as Settings, modelTypes, 'config.json');
  return encoderTypes.includes(modelType) ? 'none' : defaultPolicy;
}

export interface ModelDescription {
  readonly modelType: string;
  readonly kind: ModelKind;
  readonly config: ModelSizes;
  /** Number of trained values; a tied matrix counts once. */
  readonly parameters: number;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | undefined;
  /** Decisions that the files do not state, and tensors left unused: one line each. */
  readonly notices: readonly string[];
  readonly plan: Plan;
}

export interface BuildModelOptions {
  readonly policy: StorageChoice;
  /** Storage of keys and values. Default f32. */
  readonly kvCache?: KvStorage;
  /** The file that has the settings and its tensor names, for messages. Default: config.json. */
  readonly origin?: ModelOrigin;
  /** Whether the file's output head differs from the embedding although the config ties them (see tensorsToCompare). */
  readonly headDiffers?: boolean;
}

/**
 * Builds the plan of a model. Of a model with further parts (images, sound), only the text part is used, with a notice.
 * @throws ModelError for an unknown model_type, an invalid config, or tensors that do not fit, all named in one error
 */
export function buildModel(
  config: unknown,
  tensors: ReadonlyMap<string, TensorShape>,
  options: BuildModelOptions,
): ModelDescription {
  const { policy, kvCache, origin } = options;
  const { part, json, architecture, sizes, named, notices } = readModel(config, tensors, options);
  if (isPlan(policy)) checkPlannedModel(policy, { type: part.modelType, ...sizes });
  const messages = origin ?? { file: part.place, nameOf: named.nameOf };
  const manifest = new Manifest(named.tensors, policy, {
    origin: messages,
    sourceOf: origin ? undefined : named.nameOf,
    spare: spareTensors(part, json, sizes.layers),
  });
  const weights = architecture.weights(manifest, sizes);
  const planned = manifest.finish();
  const builder = new PlanBuilder({ kvCache });
  const output = architecture.forward(builder, sizes, weights);
  const { kind = 'decoder' } = architecture;
  const plan = kind === 'encoder' ? builder.finishEncoder(output, planned) : builder.finish(output, planned);
  return {
    modelType: part.modelType,
    kind,
    config: dataOf(sizes),
    parameters: countParameters(planned),
    eosTokenIds: json.ids('eos_token_id'),
    bosTokenId: json.ids('bos_token_id')[0],
    notices: [...notices, ...leftAside(part, manifest.spared)],
    plan: part.readAs ? { ...plan, readAs: part.readAs } : plan,
  };
}

/** @throws OptionError for a plan of another model */
function checkPlannedModel({ model }: StoragePlan, found: PlannedModel): void {
  if (model === undefined) return;
  const text = ({ type, layers, dim, vocab }: PlannedModel): string =>
    `${type} with ${layers} layers, dim ${dim}, vocab ${vocab}`;
  if (text(model) !== text(found))
    throw new OptionError('quantize', `a plan for ${text(found)}`, `one for ${text(model)}`);
}

/** Without the functions by which an architecture reads its own settings. */
const dataOf = (sizes: ModelSizes): ModelSizes =>
  Object.fromEntries(Object.entries(sizes).filter(([, value]) => typeof value !== 'function')) as unknown as ModelSizes;

/** A tied matrix counts once. */
function countParameters(planned: readonly PlannedWeight[]): number {
  const sources = new Set<string>();
  return planned.reduce((sum, { shape, source }) => {
    const key = `${source.tensor} ${source.first}`;
    if (sources.has(key)) return sum;
    sources.add(key);
    return sum + shape.reduce((a, b) => a * b, 1);
  }, 0);
}

/** Reads config.json and renames tensors to the architecture's names. */
function readModel(
  config: unknown,
  tensors: ReadonlyMap<string, TensorShape>,
  { origin, headDiffers }: Pick<BuildModelOptions, 'origin' | 'headDiffers'>,
) {
  const file = origin?.file ?? 'config.json';
  // Throws if it is not an object.
  new Config(config, file);
  const part = textPart(config as Settings, modelTypes, file);
  const json = new Config(part.settings, part.place);
  if (json.has('quantization_config')) json.fail('quantization_config', 'absent: use the weights before quantization');
  const architecture = architectures[part.modelType as keyof typeof architectures] as Architecture<ModelSizes, unknown>;
  const read = architecture.read(json);
  const named =
    origin || architecture.kind === 'encoder'
      ? unchangedNames(tensors)
      : nameTensors(tensors, architecture.root ?? usualRoot, [read.vocab, read.dim]);
  const { tied, notice } = tiesHead(part, json, read.tied, named, headDiffers);
  return { part, json, architecture, sizes: { ...read, tied }, named, notices: notice ? [notice] : [] };
}

/** The text part alone: settings with defaults filled in, tensors by the architecture's names, no unused tensors. */
export function flatModel(
  config: unknown,
  tensors: ReadonlyMap<string, TensorShape>,
  headDiffers?: boolean,
): {
  readonly config: Settings;
  readonly tensors: ReadonlyMap<string, TensorShape>;
  /** The original name of a tensor. */
  nameOf(tensor: string): string;
  readonly notices: readonly string[];
} {
  const { plan, notices } = buildModel(config, tensors, { policy: parsePolicy('none'), headDiffers });
  const { part, sizes, named } = readModel(config, tensors, { headDiffers });
  const used = new Set(
    plan.weights.flatMap(({ source }) => [source.tensor.split(STACKED)[0]!, ...(source.following ?? [])]),
  );
  const settings = withDefaults(part.settings, part.modelType, part.modelType);
  return {
    config: { ...settings, model_type: part.modelType, tie_word_embeddings: sizes.tied },
    tensors: new Map([...named.tensors].filter(([name]) => used.has(named.nameOf(name)))),
    nameOf: named.nameOf,
    notices,
  };
}

/**
 * The tensors of embedding and output head, if config.json ties them although both exist: their bytes must be compared.
 */
export function tensorsToCompare(
  config: unknown,
  tensors: ReadonlyMap<string, TensorShape>,
): { readonly embedding: string; readonly head: string } | undefined {
  const { sizes, named } = readModel(config, tensors, {});
  return sizes.tied ? named.ends : undefined;
}

function tiesHead(
  { wrapper, settings }: TextPart,
  json: Config,
  tied: boolean,
  { hasHead, ends }: NamedTensors,
  headDiffers = false,
): { tied: boolean; notice?: string } {
  const said = settings.tie_word_embeddings ?? undefined;
  // Neither config has the setting: a file without a head is tied.
  if (wrapper !== undefined && said === undefined && hasHead === false) return { tied: true };
  if (!tied || !ends || !headDiffers) return { tied };
  const notice = `tie_word_embeddings is true, but ${ends.head} differs from ${ends.embedding}: the file's head is used`;
  return { tied: false, notice: `${json.path}: ${notice}` };
}
