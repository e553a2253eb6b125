/** Converts a model with Hugging Face's settings and names to the metadata and tensors of an equivalent GGUF file. */
import { ModelError } from '../errors.ts';
import type { GgufMetadata, GgufValue } from '../formats/gguf-types.ts';
import type { RowOrder } from '../formats/views.ts';
import { type RopeTable, ropeTable } from '../plan/rope.ts';
import type { Plan } from '../plan/step.ts';
import type { ModelSizes } from './architecture.ts';
import { STACKED } from './file-tensors.ts';
import { ggufModel, ropeTensors } from './gguf.ts';
import { familiesOf } from './gguf-families.ts';
import type { Family, HeadCounts, Settings } from './gguf-family.ts';
import { ggufName } from './gguf-names.ts';
import { buildModel, flatModel, type ModelDescription } from './index.ts';
import { planDifference } from './plan-difference.ts';
import { parsePolicy } from './policy.ts';
import type { TensorShape } from './weights.ts';

/** A tensor of the GGUF file, and how it is made from the model's tensors. */
export interface GgufOutput {
  /** Name in the GGUF file. */
  readonly name: string;
  /** Shape in the GGUF file, outermost dimension first. */
  readonly shape: readonly number[];
  /** Tensors whose rows are concatenated: one, or all experts of a layer. */
  readonly sources: readonly string[];
  /** Order of the rows of each source in the file. */
  readonly rows?: RowOrder;
  /** Whether the sources are [in, out]. */
  readonly transposed: boolean;
  /** Added to every value. */
  readonly plus: number;
  /** Values to write instead of sources. */
  readonly values?: Float32Array;
}

export interface GgufModelToWrite {
  /** Metadata without vocabulary and file type. */
  readonly metadata: GgufMetadata;
  readonly tensors: readonly GgufOutput[];
  /** What llama.cpp computes differently with this file. */
  readonly warnings: readonly string[];
}

export interface HubModel {
  readonly config: Settings;
  readonly tensors: ReadonlyMap<string, TensorShape>;
  /** See ModelOptions.headDiffers. */
  readonly headDiffers?: boolean;
}

/**
 * Converts a model, then reads the result back and compares the plans.
 * @throws ModelError for models that GGUF or these tables cannot express
 */
export function ggufFromHub(hub: HubModel): GgufModelToWrite {
  const { nameOf, notices, ...model } = flatModel(hub.config, hub.tensors, hub.headDiffers);
  const description = buildModel(model.config, model.tensors, { policy: parsePolicy('none') });
  const needed = new Set(
    description.plan.weights.flatMap(({ source }) => [source.tensor, ...(source.following ?? [])]),
  );
  const candidates = familiesOf(description.modelType);
  if (candidates.length === 0) {
    throw new ModelError('NotWritable', `models of type ${description.modelType} cannot be written as GGUF`);
  }
  const problems: string[] = [];
  for (const { architecture, family } of candidates) {
    const unnamed = [...needed].find((name) => nameInFile(family, name) === undefined);
    if (unnamed !== undefined) {
      problems.push(`${architecture}: GGUF has no name for ${unnamed.split(STACKED)[0]}`);
      continue;
    }
    const written = write(architecture, family, description, { ...model, needed });
    const difference = differenceOf(description, written);
    if (difference === undefined) {
      const tensors = written.tensors.map((output) => ({ ...output, sources: output.sources.map(nameOf) }));
      return { ...written, tensors, warnings: [...notices, ...written.warnings] };
    }
    problems.push(`${architecture}: ${difference}`);
  }
  throw new ModelError('NotWritable', `${description.modelType}: the model cannot be written as GGUF:`, problems);
}

/** Architectures whose sliding windows llama.cpp supports. */
const windowed = /^gemma[234]$/;

function warningsOf(
  architecture: string,
  family: Family,
  { config, plan }: ModelDescription,
  settings: Settings,
): string[] {
  const window = Math.min(...plan.caches.map(({ window }) => window ?? Number.POSITIVE_INFINITY));
  const scaled = family.scale?.(settings) !== undefined;
  const windowless = !windowed.test(architecture) && window < config.contextLength;
  return [
    ...(windowless
      ? [`llama.cpp has no sliding window for ${architecture}: its results will differ beyond ${window} tokens`]
      : []),
    ...(scaled ? [`llama.cpp does not read attention.scale of ${architecture}: its results will differ`] : []),
  ];
}

/** The GGUF name of a tensor, also for BERT files whose names begin with `bert.`. */
const nameInFile = (family: Family, name: string): { name: string; expert?: number } | undefined =>
  ggufName(family.names, name) ?? ggufName(family.names, name.replace(/^bert\./, ''));

function write(
  architecture: string,
  family: Family,
  description: ModelDescription,
  { config, tensors, needed }: HubModel & { needed: ReadonlySet<string> },
): GgufModelToWrite {
  const { config: sizes, plan } = description;
  const { heads, kvHeads, headDim } = sizes;
  const ropes = family.ropeFactors
    ? [factorsOutput(ropeTensors[0], family.ropeFactors(config))]
    : ropeOutputs(plan, config);
  const outputs = new Map<string, GgufOutput>();
  for (const name of needed) {
    const { shape } = tensors.get(name)!;
    const { name: target, expert } = nameInFile(family, name)!;
    const transposed = family.transposed?.test(target) ?? false;
    const own = transposed ? [...shape].reverse() : shape;
    const before = outputs.get(target);
    outputs.set(target, {
      name: target,
      shape: expert === undefined ? own : [(before?.sources.length ?? 0) + 1, ...own],
      sources: [...(before?.sources ?? []), name],
      rows: inverse(family.rows?.(target, { heads, kvHeads, headDim } satisfies HeadCounts)),
      transposed,
      plus: family.onePlusNorms && /norm\.weight$/.test(target) ? 1 : 0,
    });
  }
  const metadata = settingsAsMetadata(architecture, family, sizes, config, plan);
  return {
    metadata,
    tensors: [...outputs.values(), ...ropes],
    warnings: warningsOf(architecture, family, description, config),
  };
}

function inverse(rows: RowOrder | undefined): RowOrder | undefined {
  if (rows === undefined) return undefined;
  const order = new Array<number>(rows.order.length);
  for (const [wanted, file] of rows.order.entries()) order[file] = wanted;
  return { run: rows.run, order };
}

function settingsAsMetadata(
  architecture: string,
  family: Family,
  sizes: ModelSizes,
  config: Settings,
  plan: Plan,
): GgufMetadata {
  const metadata = new Map<string, GgufValue>([['general.architecture', { type: 'string', value: architecture }]]);
  const nameOf = (key: string): string => (key.startsWith('tokenizer.') ? key : `${architecture}.${key}`);
  const put = (key: string, value: GgufValue): void => void metadata.set(nameOf(key), value);
  const u32 = (key: string, value: number): void => put(key, { type: 'uint32', value });
  const f32 = (key: string, value: number): void => put(key, { type: 'float32', value });
  u32('context_length', sizes.contextLength);
  u32('embedding_length', sizes.dim);
  u32('block_count', sizes.layers);
  u32('feed_forward_length', sizes.ffn);
  u32('attention.head_count', sizes.heads);
  u32('vocab_size', sizes.vocab);
  if (!family.transposed) {
    u32('attention.head_count_kv', sizes.kvHeads);
    u32('attention.key_length', sizes.headDim);
    u32('attention.value_length', sizes.headDim);
  }
  if (family.encoder) put('attention.causal', { type: 'bool', value: false });
  const [rope] = plan.ropes;
  if (rope) u32('rope.dimension_count', rope.rotary);
  for (const { key, kind, setting, fallback } of family.fields) {
    if (metadata.has(nameOf(key))) continue;
    const value = settingOf(config, setting) ?? fallback;
    if (typeof value === 'boolean') put(key, { type: 'bool', value });
    else if (typeof value === 'number') (kind === 'size' ? u32 : f32)(key, value);
  }
  const { rope_type, type = rope_type, factor, ...scaling } = ropeSettings(config);
  if (type === 'linear' || type === 'yarn') {
    put('rope.scaling.type', { type: 'string', value: type });
    f32('rope.scaling.factor', Number(factor));
  }
  const original = scaling.original_max_position_embeddings ?? config.original_max_position_embeddings;
  if (original !== undefined && type !== 'llama3') u32('rope.scaling.original_context_length', Number(original));
  const scale = family.scale?.(config);
  if (scale !== undefined) f32('attention.scale', scale);
  const longRope = plan.ropes.find(({ long }) => long);
  if (longRope) f32('rope.scaling.attn_factor', longRope.magnitude);
  for (const [key, value] of family.metadata?.(config, sizes) ?? []) put(key, value);
  return metadata;
}

/** A setting of config.json, at the top level or among the rope settings. */
function settingOf(config: Settings, setting: string): unknown {
  const local = (config.rope_parameters as Settings | undefined)?.sliding_attention as Settings | undefined;
  if (setting === 'rope_local_base_freq' && local) return local.rope_theta;
  if (setting !== 'rope_theta') return config[setting] ?? undefined;
  return ropeSettings(config).rope_theta ?? config.rope_theta ?? config.rotary_emb_base;
}

function ropeSettings(config: Settings): Settings {
  const all = (config.rope_scaling ?? config.rope_parameters ?? {}) as Settings;
  return (all.full_attention as Settings | undefined) ?? all;
}

/** Tensors of frequency factors, for the rope scalings that GGUF stores as factors per pair. */
function ropeOutputs({ ropes }: Plan, config: Settings): GgufOutput[] {
  const { rope_type, type = rope_type, ...settings } = ropeSettings(config);
  const [rope] = ropes;
  if (rope === undefined || (type !== 'llama3' && type !== 'longrope' && type !== 'su')) return [];
  const [all, long, short] = ropeTensors;
  const plain = ropeTable(rope.name, rope.rotary, Number(settings.rope_theta ?? config.rope_theta), {
    type: 'default',
  });
  const output = (name: string, { frequencies }: Pick<RopeTable, 'frequencies'>): GgufOutput =>
    factorsOutput(
      name,
      plain.frequencies.map((frequency, i) => frequency / frequencies[i]!),
    );
  return rope.long ? [output(long, rope.long), output(short, rope)] : [output(all, rope)];
}

const factorsOutput = (name: string, values: Float32Array): GgufOutput => ({
  name,
  shape: [values.length],
  sources: [],
  transposed: false,
  plus: 0,
  values,
});

/** The first difference between the model and the GGUF file as it would be read; undefined if there is none. */
function differenceOf({ plan, config }: ModelDescription, { metadata, tensors }: GgufModelToWrite): string | undefined {
  const shapes = new Map(tensors.map(({ name, shape }) => [name, { dtype: 'F32', shape }]));
  const ropeFactors = new Map(tensors.flatMap(({ name, values }) => (values ? [[name, values]] : [])));
  let read: Plan;
  try {
    const model = ggufModel({ name: 'the file', metadata, tensors: shapes, ropeFactors });
    read = buildModel(model.config, model.tensors, { policy: parsePolicy('none'), origin: model.origin }).plan;
  } catch (error) {
    if (error instanceof ModelError) return error.message.replaceAll('\n', ' ');
    throw error;
  }
  return planDifference(plan, read, config.contextLength);
}
