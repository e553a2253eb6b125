/** The architectures, and the way from config.json and tensor shapes to a plan. */

import { ModelError } from '../errors.ts';
import { PlanBuilder, type Rows } from '../plan/builder.ts';
import type { Plan } from '../plan/step.ts';
import type { KvStorage } from '../quant/kv-cache.ts';
import { bert } from './bert.ts';
import { Config } from './config.ts';
import { falcon } from './falcon.ts';
import { gemma } from './gemma.ts';
import { gemma2, gemma3 } from './gemma3.ts';
import { gemma4 } from './gemma4.ts';
import { gptNeoX } from './gpt-neox.ts';
import { gpt2 } from './gpt2.ts';
import { granite } from './granite.ts';
import { llama } from './llama.ts';
import { mistral } from './mistral.ts';
import { mixtral } from './mixtral.ts';
import { modernBert } from './modernbert.ts';
import { nomicBert } from './nomic-bert.ts';
import { olmo2 } from './olmo2.ts';
import { phi } from './phi.ts';
import { phi3 } from './phi3.ts';
import type { StoragePolicy } from './policy.ts';
import { qwen2, qwen3 } from './qwen.ts';
import { qwen3Moe } from './qwen3-moe.ts';
import { smollm3 } from './smollm3.ts';
import { stablelm } from './stablelm.ts';
import { starcoder2 } from './starcoder2.ts';
import { Manifest, type ModelOrigin, type TensorShape } from './weights.ts';

/** What every model has. */
export interface Sizes {
  readonly layers: number;
  readonly dim: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly vocab: number;
  /** Most positions that the model was made for. */
  readonly contextLength: number;
  /** The output head, where there is one, is the token embedding. */
  readonly tied: boolean;
}

export type ModelKind = 'decoder' | 'encoder';

/** One model family: what its config says, which weights it has, what it computes. */
export interface Architecture<C extends Sizes, W> {
  /** Decoders say what comes next, encoders what a text is. Default: decoder. */
  readonly kind?: ModelKind;
  read(json: Config): C;
  weights(manifest: Manifest, config: C): W;
  /** Adds the steps of a forward; the logits, or an encoder's last hidden state. */
  forward(plan: PlanBuilder, config: C, weights: W): Rows;
}

/** By `model_type` of config.json. */
const architectures = {
  gpt2,
  llama,
  mistral,
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
/** Those that embed texts. */
export const encoderTypes: readonly string[] = modelTypes.filter(
  (type) =>
    (architectures[type as keyof typeof architectures] as Pick<Architecture<never, never>, 'kind'>).kind === 'encoder',
);

export interface ModelDescription {
  readonly modelType: string;
  readonly kind: ModelKind;
  readonly config: Sizes;
  /** Trained values; a tied matrix counts once. */
  readonly parameters: number;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | undefined;
  readonly plan: Plan;
}

export interface BuildModelOptions {
  readonly policy: StoragePolicy;
  /** Keep hidden states for inspection: taps hidden.0 .. hidden.L and final. */
  readonly taps?: boolean;
  /** How keys and values are stored. Default f32. */
  readonly kvCache?: KvStorage;
  /** For messages, where it is not config.json: what says the settings, and its name of a tensor. */
  readonly origin?: ModelOrigin;
}

/** @throws ModelError for an unknown model_type, a bad config, and all tensors that do not fit, named at once */
export function buildModel(
  config: unknown,
  tensors: ReadonlyMap<string, TensorShape>,
  options: BuildModelOptions,
): ModelDescription {
  const file = options.origin?.file ?? 'config.json';
  const json = new Config(config, file);
  const modelType = json.text('model_type', '');
  if (!Object.hasOwn(architectures, modelType)) {
    const found = modelType
      ? `model_type ${JSON.stringify(modelType.slice(0, 80))} is not known`
      : 'model_type is missing';
    throw new ModelError('UnknownModelType', `${file}: ${found}; known are ${modelTypes.join(', ')}`);
  }
  if (json.has('quantization_config')) json.fail('quantization_config', 'absent: take the weights before quantization');
  const architecture = architectures[modelType as keyof typeof architectures];
  const built = build(architecture as Architecture<Sizes, unknown>, json, tensors, options);
  return { ...built, modelType, eosTokenIds: json.ids('eos_token_id'), bosTokenId: json.ids('bos_token_id')[0] };
}

function build<C extends Sizes, W>(
  architecture: Architecture<C, W>,
  json: Config,
  tensors: ReadonlyMap<string, TensorShape>,
  { policy, taps, kvCache, origin }: BuildModelOptions,
): Pick<ModelDescription, 'kind' | 'config' | 'parameters' | 'plan'> {
  const config = architecture.read(json);
  const manifest = new Manifest(tensors, policy, origin);
  const weights = architecture.weights(manifest, config);
  const planned = manifest.finish();
  const builder = new PlanBuilder({ taps, kvCache });
  const output = architecture.forward(builder, config, weights);
  const { kind = 'decoder' } = architecture;
  const plan = kind === 'encoder' ? builder.finishEncoder(output, planned) : builder.finish(output, planned);
  const sources = new Set<string>();
  const parameters = planned.reduce((sum, { shape, source }) => {
    const key = `${source.tensor} ${source.first}`;
    if (sources.has(key)) return sum;
    sources.add(key);
    return sum + shape.reduce((a, b) => a * b, 1);
  }, 0);
  return { kind, config, parameters, plan };
}
