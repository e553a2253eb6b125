/** Converts a GGUF file's metadata and tensor list to Hugging Face's settings, names and row orders. */
import { ModelError } from '../errors.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';
import type { TensorView } from '../formats/views.ts';
import { GgufConfig } from './gguf-config.ts';
import { familyOf, ggufArchitectures } from './gguf-families.ts';
import type { Family, GgufFacts, HeadCounts, Settings } from './gguf-family.ts';
import { fillExpert, ggufName, huggingFaceName } from './gguf-names.ts';
import type { ModelOrigin, TensorShape } from './weights.ts';

export interface GgufTensors {
  /** Named in errors. */
  readonly name: string;
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, TensorShape>;
  /** Values of the tensors that `ropeTensors` names. */
  readonly ropeFactors: ReadonlyMap<string, Float32Array>;
  /** Other model files of the folder, named in errors. */
  readonly beside?: readonly string[];
}

export interface GgufModel {
  readonly config: Settings;
  /** By Hugging Face's names; unknown names are left unchanged. */
  readonly tensors: ReadonlyMap<string, TensorShape & { readonly view: TensorView }>;
  readonly origin: ModelOrigin;
}

/** Most experts or heads of a layer: a file may claim any number of empty ones. */
const MOST_EXPERTS = 4096;

/** Tensors that hold settings: factors of rope frequencies. */
export const ropeTensors = ['rope_freqs.weight', 'rope_factors_long.weight', 'rope_factors_short.weight'] as const;

/** @throws ModelError for an unknown architecture, and for invalid metadata, naming the key */
export function ggufModel(file: GgufTensors): GgufModel {
  const metadata = new GgufConfig(file.metadata, file.name);
  checkIsModel(metadata, file);
  const facts: GgufFacts = {
    metadata,
    has: (tensor) => file.tensors.has(tensor),
    shapeOf: (tensor) => file.tensors.get(tensor)?.shape,
  };
  const family = familyOf(facts);
  if (family === undefined) {
    const found = JSON.stringify(metadata.architecture.slice(0, 80));
    const what = `general.architecture ${found} is not known; known are ${ggufArchitectures.join(', ')}`;
    throw new ModelError('UnknownModelType', `${file.name}: ${what}`);
  }
  checkSizes(metadata, family, file.tensors.size);
  const config = readSettings(family, facts, file);
  const origin = { file: file.name, nameOf: (tensor: string) => ggufName(family.names, tensor)?.name ?? tensor };
  return { config, tensors: viewTensors(family, metadata, file), origin };
}

/** Descriptions, by `general.type`, of files that are not a model. */
const otherFiles: Readonly<Record<string, string>> = {
  mmproj: 'the part of a model that reads images or sound (mmproj)',
  adapter: 'an adapter (LoRA) to a model',
  imatrix: 'an importance matrix (imatrix)',
};

/** Most names in a message. */
const MOST_BESIDE = 5;

/** @throws ModelError NotTheModel for a file that belongs to a model but is not one */
function checkIsModel(metadata: GgufConfig, { name, beside = [] }: GgufTensors): void {
  const type = metadata.architecture === 'clip' ? 'mmproj' : metadata.text('general.type', 'model');
  if (!Object.hasOwn(otherFiles, type)) return;
  const others = beside.length ? `: ${beside.slice(0, MOST_BESIDE).join(', ')}` : '';
  const what = `expected a model, found ${otherFiles[type]}; give the .gguf file of the model itself${others}`;
  throw new ModelError('NotTheModel', `${name}: ${what}`);
}

/** Checks sizes here, so that errors name the keys of the GGUF file. */
function checkSizes(metadata: GgufConfig, { layerwise }: Family, tensors: number): void {
  if (metadata.size('block_count') > tensors) metadata.fail('block_count', `at most ${tensors}, the number of tensors`);
  const heads = metadata.size('attention.head_count');
  const kvHeads = layerwise ? heads : metadata.size('attention.head_count_kv', heads);
  if (heads % kvHeads) metadata.fail('attention.head_count_kv', `a divisor of attention.head_count ${heads}`);
  const dim = metadata.size('embedding_length');
  if (!metadata.has('attention.key_length') && dim % heads) {
    metadata.fail('attention.head_count', `a divisor of embedding_length ${dim}`);
  }
  const key = metadata.size('attention.key_length', dim / heads);
  const value = metadata.size('attention.value_length', key);
  if (key !== value) metadata.fail('attention.value_length', `attention.key_length ${key}`);
}

function readSettings(family: Family, facts: GgufFacts, file: GgufTensors): Settings {
  const { metadata } = facts;
  const settings: Settings = { model_type: family.modelType, ...family.constants };
  for (const { key, kind, setting, fallback, optional, zeroIsNone } of family.fields) {
    if (optional && (!metadata.has(key) || (zeroIsNone && metadata.count(key) === 0))) continue;
    if (kind === 'flag') settings[setting] = metadata.flag(key, fallback === true);
    else settings[setting] = metadata[kind](key, fallback as number | undefined);
  }
  // A missing matrix is reported later, by the manifest.
  settings.vocab_size = file.tensors.get('token_embd.weight')?.shape[0] ?? 1;
  settings.tie_word_embeddings = !facts.has('output.weight');
  settings.bos_token_id = metadata.count('tokenizer.ggml.bos_token_id') ?? null;
  settings.eos_token_id = ['eos', 'eot', 'eom'].flatMap(
    (name) => metadata.count(`tokenizer.ggml.${name}_token_id`) ?? [],
  );
  settings.rope_scaling = readScaling(metadata, file.ropeFactors);
  const all: Settings = { ...settings, ...family.derived?.(facts, settings) };
  const { headDim } = headCounts(metadata, family);
  const partial = 'partial_rotary_factor' in all || 'rotary_pct' in all;
  if (!partial && metadata.has('rope.dimension_count') && metadata.size('rope.dimension_count') !== headDim) {
    metadata.fail('rope.dimension_count', `${headDim}, the length of a head`);
  }
  return all;
}

function readScaling(metadata: GgufConfig, factors: GgufTensors['ropeFactors']): Settings | null {
  const [all, long, short] = ropeTensors.map((name) => factors.get(name));
  const original = metadata.has('rope.scaling.original_context_length')
    ? { original_max_position_embeddings: metadata.size('rope.scaling.original_context_length') }
    : {};
  const attention = metadata.has('rope.scaling.attn_factor')
    ? { attention_factor: metadata.positive('rope.scaling.attn_factor') }
    : {};
  if (all) {
    const list = [...all];
    return { rope_type: 'longrope', short_factor: list, long_factor: list, attention_factor: 1 };
  }
  if (long && short) {
    return { rope_type: 'longrope', long_factor: [...long], short_factor: [...short], ...original, ...attention };
  }
  if (metadata.has('rope.scale_linear')) return { rope_type: 'linear', factor: metadata.positive('rope.scale_linear') };
  const type = metadata.text('rope.scaling.type', 'none');
  if (type === 'none') return null;
  if (type !== 'linear' && type !== 'yarn') metadata.fail('rope.scaling.type', 'none, linear or yarn');
  const factor = metadata.positive('rope.scaling.factor');
  return type === 'linear' ? { rope_type: type, factor } : { rope_type: type, factor, ...original };
}

function headCounts(metadata: GgufConfig, { layerwise }: Family): HeadCounts {
  const heads = metadata.size('attention.head_count');
  return {
    heads,
    kvHeads: layerwise ? heads : metadata.size('attention.head_count_kv', heads),
    headDim: metadata.size('attention.key_length', metadata.size('embedding_length') / heads),
  };
}

function viewTensors(family: Family, metadata: GgufConfig, { tensors }: GgufTensors): GgufModel['tensors'] {
  const counts = headCounts(metadata, family);
  const views = new Map<string, TensorShape & { view: TensorView }>();
  for (const [source, { dtype, shape }] of tensors) {
    if (ropeTensors.some((name) => name === source)) continue;
    for (const part of layersOf(source, shape, family, counts)) {
      const name = huggingFaceName(family.names, part.name) ?? part.name;
      const rows = family.rows?.(part.name, counts);
      const plus = family.onePlusNorms && /norm\.weight$/.test(source) ? 1 : 0;
      const transposed = family.transposed?.test(source) ?? false;
      const add = (name: string, shape: readonly number[], firstRow: number): void =>
        void views.set(name, { dtype, shape, plus, transposed, view: { source, shape, firstRow, rows } });
      if (!name.includes('.E.')) {
        add(name, part.shape, part.firstRow);
        continue;
      }
      const [experts = 0, ...own] = shape;
      const ownRows = own.length > 1 ? own[0]! : 1;
      for (let e = 0; e < Math.min(experts, MOST_EXPERTS); e++) add(fillExpert(name, e), own, e * ownRows);
    }
  }
  return views;
}

interface Part {
  readonly name: string;
  readonly shape: readonly number[];
  readonly firstRow: number;
}

/** Splits a tensor with q, k and v, for models that have three tensors. */
function layersOf(name: string, shape: readonly number[], { names }: Family, counts: HeadCounts): readonly Part[] {
  const { heads, kvHeads, headDim } = counts;
  const isFused = /\.attn_qkv\./.test(name) && !Object.hasOwn(names, 'blk.N.attn_qkv');
  if (!isFused || shape[0] !== (heads + 2 * kvHeads) * headDim) return [{ name, shape, firstRow: 0 }];
  let firstRow = 0;
  return (
    [
      ['q', heads],
      ['k', kvHeads],
      ['v', kvHeads],
    ] as const
  ).map(([layer, count]) => {
    const rows = count * headDim;
    firstRow += rows;
    return {
      name: name.replace('attn_qkv', `attn_${layer}`),
      shape: [rows, ...shape.slice(1)],
      firstRow: firstRow - rows,
    };
  });
}
