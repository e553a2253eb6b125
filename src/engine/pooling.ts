/** From hidden states of tokens to one vector per text. */
import { ModelError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import type { GgufMetadata } from '../formats/gguf-types.ts';
import { readJson } from '../formats/json.ts';

/** mean: of all tokens, special ones too; cls: the first token; last: the last token. */
export type Pooling = 'mean' | 'cls' | 'last';
export const poolings: readonly Pooling[] = ['mean', 'cls', 'last'];

/** `pooling_type` of GGUF files. */
export const ggufPoolings: Readonly<Record<Pooling, number>> = { mean: 1, cls: 2, last: 3 };

/** What a GGUF file says; mean where it says nothing that we have. */
export function ggufPooling(metadata: GgufMetadata): Pooling {
  const found = metadata.get(`${metadata.get('general.architecture')?.value}.pooling_type`)?.value;
  return poolings.find((pooling) => ggufPoolings[pooling] === found) ?? 'mean';
}

/** Keys of 1_Pooling/config.json. */
const modes: Readonly<Record<string, Pooling | undefined>> = {
  pooling_mode_mean_tokens: 'mean',
  pooling_mode_cls_token: 'cls',
  pooling_mode_lasttoken: 'last',
};

/** Modules of sentence-transformers that we run, by the last part of their type. */
const known = ['Transformer', 'Pooling', 'Normalize'];

/**
 * What the model was trained with, as sentence-transformers writes it down; mean where nothing says it. An error where it
 * is something else than we have: whoever names a pooling need not care.
 */
export async function readPooling(folder: FileFolder): Promise<Pooling | ModelError> {
  const refuse = (found: string): ModelError =>
    new ModelError(
      'UnsupportedPooling',
      `${folder.name}: expected pooling by ${poolings.join(', ')}, found ${found}; name a pooling to use the model without`,
    );
  const modules = await readJson(folder, 'modules.json');
  if (!Array.isArray(modules)) return 'mean';
  const stages = modules.map((module) => {
    const { type, path } = asObject(module);
    return { kind: String(type).split('.').at(-1)!, path: String(path) };
  });
  const other = stages.find(({ kind }) => !known.includes(kind));
  if (other) return refuse(`a module ${other.kind.slice(0, 80)} in modules.json`);
  const stage = stages.find(({ kind }) => kind === 'Pooling');
  if (!stage) return 'mean';
  const config = asObject(await readJson(folder.folder(stage.path), 'config.json'));
  const asked = Object.keys(config).filter((key) => key.startsWith('pooling_mode_') && config[key] === true);
  const [mode = 'pooling_mode_mean_tokens'] = asked;
  return (asked.length < 2 && Object.hasOwn(modes, mode) && modes[mode]) || refuse(asked.join(' and ').slice(0, 200));
}

const asObject = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};

/** One vector from rows of one text, which may be views of memory that changes. Sums in f64, in the order of the tokens. */
export function pool(rows: number, row: (i: number) => Float32Array, pooling: Pooling): Float32Array {
  if (pooling !== 'mean') return row(pooling === 'cls' ? 0 : rows - 1).slice();
  const sums = new Float64Array(row(0).length);
  for (let i = 0; i < rows; i++) for (const [d, value] of row(i).entries()) sums[d]! += value;
  return Float32Array.from(sums, (sum) => sum / rows);
}

/** Scales to length 1; zeros stay. */
export function normalize(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return length === 0 ? vector : vector.map((value) => value / length);
}
