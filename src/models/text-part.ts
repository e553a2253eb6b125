/**
 * Finds the part of config.json that describes the decoder. Models that also take images or sound have it in a nested
 * object (`text_config` or similar), whose `model_type` is a known type or an alias of one.
 */
import { ModelError } from '../errors.ts';
import { defaultSettings } from './defaults.ts';
import type { Settings } from './gguf-family.ts';

export interface TextPart {
  /** A known type. */
  readonly modelType: string;
  /** Settings; if the part is nested, absent keys have the defaults of transformers. */
  readonly settings: Settings;
  /** File and keys of the part, for messages. */
  readonly place: string;
  /** `model_type` of the whole model, if it has further parts. */
  readonly wrapper?: string;
  /** Placeholder tokens of images and sound -> token whose embedding is used for them in text. */
  readonly readAs?: ReadonlyMap<number, number>;
}

/**
 * Aliases: types that compute the same as a known type for text. (In M-RoPE, all positions of a text token are equal.)
 */
export const sameAs: Readonly<Record<string, string>> = {
  qwen2_vl: 'qwen2',
  qwen2_5_vl: 'qwen2',
  qwen2_5_omni: 'qwen2',
  qwen3_vl: 'qwen3',
  qwen3_vl_moe: 'qwen3_moe',
  gemma4_unified: 'gemma4_text',
  phi3_v: 'phi3',
  llava_llama: 'llama',
  llava_mistral: 'mistral',
  llava_qwen: 'qwen2',
};

/** Default `model_type` of a text part in transformers (key) -> types of whole models. */
export const partTypes: Readonly<Record<string, readonly string[]>> = {
  llama: [
    ...['llava', 'llava_next', 'llava_next_video', 'video_llava', 'vipllava', 'idefics3', 'smolvlm', 'janus'],
    ...['deepseek_vl', 'deepseek_vl_hybrid', 'perception_lm', 'voxtral', 'glmasr'],
  ],
  mistral: ['mistral3', 'idefics2', 'pixtral'],
  gemma: ['paligemma'],
  granite: ['granite_speech', 'granite_speech_plus'],
  qwen2: [
    ...['internvl', 'llava_onevision', 'ovis2', 'got_ocr2', 'qwen2_audio', 'video_llama_3', 'vibevoice', 'fast_vlm'],
    ...['audioflamingo3'],
  ],
  qwen3: ['fun_asr_nano', 'lighton_ocr', 'qianfan_ocr', 'qwen3_asr'],
  gemma3_text: ['shieldgemma2'],
};

/** Keys of nested parts, the most specific first. */
const partKeys = ['text', 'llm', 'language', 'language_model', 'lm', 'thinker', 'vlm', 'decoder'].map(
  (key) => `${key}_config`,
);
const otherParts = /vision|visual|image|video|audio|speech|talker|token2wav|projector|encoder/;

/** Deepest nesting of parts: Qwen Omni has the text part in its thinker. */
const MOST_DEPTH = 4;

const isObject = (value: unknown): value is Settings =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The known type that a type names: itself, without `_text`, or by alias. */
function knownType(type: unknown, known: readonly string[]): string | undefined {
  if (typeof type !== 'string') return undefined;
  for (const name of [type, plainType(type), `${type}_text`]) {
    if (known.includes(name)) return name;
    if (Object.hasOwn(sameAs, name) && known.includes(sameAs[name]!)) return sameAs[name];
  }
  return undefined;
}

const plainType = (type: string): string => type.replace(/_text(_model|_config)?$/, '');

/** The type from a class name such as `Qwen2ForCausalLM`, for configs without `model_type`. */
function typeOfClass({ architectures }: Settings, known: readonly string[]): string | undefined {
  const [name] = Array.isArray(architectures) ? architectures : [];
  if (typeof name !== 'string') return undefined;
  const plain = name.replace(/(ForCausalLM|LMHeadModel|Model)$/, '').toLowerCase();
  return known.find((type) => type.replaceAll('_', '') === plain);
}

function typeOfPart(part: Settings, whole: unknown, known: readonly string[]): string | undefined {
  if (part.model_type !== undefined && part.model_type !== null) return knownType(part.model_type, known);
  if (typeof whole !== 'string') return typeOfClass(part, known);
  const fixed = Object.keys(partTypes).find((type) => partTypes[type]!.includes(whole));
  return knownType(fixed, known) ?? typeOfClass(part, known) ?? knownType(whole, known);
}

/** Keys of nested objects that may be the text part, the most likely first. */
function partsOf(settings: Settings, known: readonly string[]): string[] {
  const keys = Object.keys(settings).filter((key) => isObject(settings[key]));
  const named = partKeys.filter((key) => keys.includes(key));
  const typed = keys.filter(
    (key) => !named.includes(key) && !otherParts.test(key) && knownType((settings[key] as Settings).model_type, known),
  );
  return [...named, ...typed];
}

/** Whether the config has settings for images or sound. */
const hasOtherParts = (settings: Settings): boolean =>
  Object.entries(settings).some(
    ([key, value]) =>
      (isObject(value) && otherParts.test(key)) ||
      (value !== null && /^(mm_vision_tower|mm_projector_type|img_processor)$/.test(key)),
  );

/**
 * @param known types of supported decoders and encoders
 * @throws ModelError UnknownModelType, naming the type of the text part
 */
export function textPart(config: Settings, known: readonly string[], file: string): TextPart {
  const { model_type: whole } = config;
  const [first] = partsOf(config, known);
  if (typeof whole === 'string' && known.includes(whole) && !partKeys.includes(first!)) {
    return { modelType: whole, settings: config, place: file, ...(hasOtherParts(config) && { wrapper: whole }) };
  }
  const found = findPart([config], known, file);
  if (found) return found;
  const type = first === undefined ? knownType(whole, known) : undefined;
  if (type !== undefined)
    return { modelType: type, settings: withDefaults(config, whole, type), place: file, wrapper: whole as string };
  throw unknownType(config, known, file);
}

/** @param outer the enclosing configs, the innermost last */
function findPart(outer: readonly Settings[], known: readonly string[], place: string): TextPart | undefined {
  const around = outer.at(-1)!;
  for (const key of partsOf(around, known)) {
    const part = around[key] as Settings;
    const inside = `${place}: ${key}`;
    const deeper = outer.length < MOST_DEPTH ? findPart([...outer, part], known, inside) : undefined;
    if (deeper) return deeper;
    const type = typeOfPart(part, around.model_type, known);
    if (type !== undefined) {
      const written = typeof part.model_type === 'string' ? part.model_type : type;
      const settings = { ...withDefaults(part, written, type), ...sharedSettings([...outer, part]) };
      const wrapper = String(outer[0]!.model_type ?? type);
      return { modelType: type, settings, place: inside, wrapper, readAs: placeholders(wrapper, around, settings) };
    }
  }
  return undefined;
}

/** Adds defaults for absent keys: those of the written type, then those of the type that it is an alias of. */
export const withDefaults = (settings: Settings, written: unknown, type: string): Settings => ({
  ...defaultSettings(type),
  ...defaultSettings(plainType(String(written))),
  ...settings,
});

/** Settings that may be in any of the enclosing configs. */
function sharedSettings(configs: readonly Settings[]): Settings {
  const shared: Settings = {};
  const all = (key: string): unknown[] =>
    configs.map((config) => config[key]).filter((value) => (value ?? null) !== null);
  const ties = all('tie_word_embeddings');
  if (ties.length) shared.tie_word_embeddings = ties.includes(true) || ties[0];
  const [quantized] = all('quantization_config');
  if (quantized !== undefined) shared.quantization_config = quantized;
  const ends = all('eos_token_id').flat();
  if (ends.length) shared.eos_token_id = [...new Set(ends)];
  const begins = all('bos_token_id');
  if (begins.length) shared.bos_token_id = begins.at(-1);
  return shared;
}

/** In Gemma 4, placeholder tokens have the embedding of the padding token. */
function placeholders(wrapper: string, around: Settings, part: Settings): TextPart['readAs'] {
  if (!/^gemma4(_unified)?$/.test(wrapper)) return undefined;
  const padding = Number(part.pad_token_id ?? 0);
  const ids = [around.image_token_id ?? 258880, around.video_token_id ?? 258884, around.audio_token_id ?? 258881].map(
    Number,
  );
  return padding >= 0 && padding < Number(part.vocab_size) ? new Map(ids.map((id) => [id, padding])) : undefined;
}

function unknownType(config: Settings, known: readonly string[], file: string): ModelError {
  let [place, part, around] = [file, config, ''];
  for (let key = partsOf(part, known)[0]; key !== undefined; key = partsOf(part, known)[0]) {
    around = ` inside of ${quoted(config.model_type)}`;
    part = part[key] as Settings;
    place = `${place}: ${key}`;
    if (place.length > 200) break;
  }
  const { model_type: type } = part;
  const found =
    typeof type === 'string' && type ? `model_type ${quoted(type)}${around} is not known` : 'model_type is missing';
  return new ModelError('UnknownModelType', `${place}: ${found}; known are ${known.join(', ')}`);
}

const quoted = (type: unknown): string => JSON.stringify(String(type).slice(0, 80));
