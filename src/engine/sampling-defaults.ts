/** Defaults of sampling options: from a model's files, else from the library. */
import type { FileFolder } from '../formats/bytes.ts';
import { readJson } from '../formats/checkpoint.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';
import type { OptionRules } from '../sampling/option-kinds.ts';
import { librarySampling } from '../sampling/sampling-options.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';

/** Sampling options that a model's files may set. */
type Key = keyof typeof librarySampling;

export interface SamplingDefault {
  readonly value: number;
  /** File and field of the value, or `library`. */
  readonly from: string;
}

export type SamplingDefaults = Readonly<Record<Key, SamplingDefault>>;

interface Field {
  /** Key in generation_config.json. */
  readonly name: string;
  /** Key in GGUF metadata after `general.sampling.`, as in gguf-py. */
  readonly gguf: string;
  readonly expected: string;
  readonly accepts: (value: number) => boolean;
}

const MOST_TOKENS = 2 ** 31 - 1;

const fields: Readonly<Record<Key, Field>> = {
  temperature: { name: 'temperature', gguf: 'temp', expected: 'a number >= 0', accepts: (x) => x >= 0 && x < Infinity },
  topK: {
    name: 'top_k',
    gguf: 'top_k',
    expected: `an integer from -1 to ${MOST_TOKENS}`,
    accepts: (x) => Number.isInteger(x) && x >= -1 && x <= MOST_TOKENS,
  },
  topP: { name: 'top_p', gguf: 'top_p', expected: 'a number in (0, 1]', accepts: (x) => x > 0 && x <= 1 },
  minP: { name: 'min_p', gguf: 'min_p', expected: 'a number in [0, 1]', accepts: (x) => x >= 0 && x <= 1 },
  repetitionPenalty: {
    name: 'repetition_penalty',
    gguf: 'penalty_repeat',
    expected: 'a number > 0',
    accepts: (x) => x > 0 && x < Infinity,
  },
};

const keys = Object.keys(fields) as readonly Key[];

const FILE = 'generation_config.json';

/**
 * The defaults of a folder, or of a GGUF file by its metadata. Invalid values are ignored with a warning.
 * @throws FormatError if generation_config.json is not valid JSON
 */
export async function readSamplingDefaults(
  folder: FileFolder,
  metadata: GgufMetadata | undefined,
  onWarning?: (text: string) => void,
): Promise<SamplingDefaults> {
  return metadata ? fromMetadata(metadata, onWarning) : fromGeneration(await readJson(folder, FILE), onWarning);
}

/** @param json parsed generation_config.json; undefined if there is none */
export function fromGeneration(json: unknown, onWarning?: (text: string) => void): SamplingDefaults {
  const found = typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : {};
  const sample = ownValue(found, 'do_sample');
  if (sample !== undefined && typeof sample !== 'boolean') warn(onWarning, FILE, 'do_sample', 'true or false', sample);
  const defaults = resolve((key) => {
    const { name } = fields[key];
    const value = ownValue(found, name);
    return value === undefined ? undefined : { value, file: FILE, name };
  }, onWarning);
  // do_sample false means greedy, whatever the temperature.
  if (sample !== false) return defaults;
  return { ...defaults, temperature: { value: 0, from: `${FILE}, do_sample` } };
}

function fromMetadata(metadata: GgufMetadata, onWarning?: (text: string) => void): SamplingDefaults {
  return resolve((key) => {
    const name = `general.sampling.${fields[key].gguf}`;
    const entry = metadata.get(name);
    if (!entry) return undefined;
    const { type, value } = entry;
    // Rounds an f32 to the decimal that was written: 0.95, not 0.949999988.
    const shown = type === 'float32' && typeof value === 'number' ? Number(value.toPrecision(7)) : value;
    return { value: typeof shown === 'bigint' ? Number(shown) : shown, file: 'GGUF metadata', name };
  }, onWarning);
}

function resolve(
  find: (key: Key) => { readonly value: unknown; readonly file: string; readonly name: string } | undefined,
  onWarning?: (text: string) => void,
): SamplingDefaults {
  const entries = keys.map((key): [Key, SamplingDefault] => {
    const { expected, accepts } = fields[key];
    const found = find(key);
    if (found && typeof found.value === 'number' && accepts(found.value))
      return [key, { value: found.value, from: `${found.file}, ${found.name}` }];
    if (found) warn(onWarning, found.file, found.name, expected, found.value);
    return [key, { value: librarySampling[key], from: 'library' }];
  });
  return Object.fromEntries(entries) as Record<Key, SamplingDefault>;
}

function warn(
  onWarning: ((text: string) => void) | undefined,
  file: string,
  name: string,
  expected: string,
  found: unknown,
): void {
  const shown =
    typeof found === 'object' && found !== null ? (Array.isArray(found) ? 'an array' : 'an object') : String(found);
  onWarning?.(`${file}: ${name} must be ${expected}, found ${shown.slice(0, 100)}; ignored`);
}

const ownValue = (object: Readonly<Record<string, unknown>>, name: string): unknown =>
  Object.hasOwn(object, name) ? object[name] : undefined;

/** Rules for checking the options of a request, with the model's defaults. */
export function generationRules(info: {
  readonly description: { readonly config: { readonly vocab: number } };
  readonly samplingDefaults: SamplingDefaults;
}): OptionRules<GenerateOptions> {
  const defaults = Object.fromEntries(keys.map((key) => [key, info.samplingDefaults[key].value]));
  return { vocab: info.description.config.vocab, defaults };
}

/** `temperature 0.7, top-k 40 (generation_config.json); top-p 1, ... (library)`: one line for users. */
export function describeSampling(defaults: SamplingDefaults): string {
  const groups = new Map<string, string[]>();
  for (const key of keys) {
    const { value, from } = defaults[key];
    const source = from.split(', ')[0]!;
    const name = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    groups.set(source, [...(groups.get(source) ?? []), `${name} ${value}`]);
  }
  return [...groups].map(([source, values]) => `${values.join(', ')} (${source})`).join('; ');
}
