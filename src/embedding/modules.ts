/** Reads modules.json of sentence-transformers: the pooling, dense layers and norms after the transformer. */
import { ModelError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { isObject, readJson } from '../formats/json.ts';
import { readDense, readLayerNorm } from './dense.ts';
import { type ModuleSettings, shown, unsupported } from './module-settings.ts';
import { normalize, type Pooling, poolingNamed, poolings } from './pooling.ts';

/** A module after the pooling. Returns its result in newly allocated memory. */
export type VectorModule = (vector: Float32Array) => Float32Array;

export interface EmbeddingModules {
  /** Their vectors are concatenated in this order. */
  readonly poolings: readonly Pooling[];
  /** Whether the tokens of a prompt are pooled too. */
  readonly includePrompt: boolean;
  /** In the order of the file, without a final Normalize module. */
  readonly modules: readonly VectorModule[];
  /** Whether a final Normalize module scales the vector to length 1. */
  readonly normalize: boolean;
}

/** The modules of a model whose files name none. */
export const defaultModules = (pooling: Pooling): EmbeddingModules => ({
  poolings: [pooling],
  includePrompt: true,
  modules: [],
  normalize: true,
});

/** An entry of modules.json. */
interface Entry {
  /** Class name without the Python module; the whole `type` for classes outside sentence-transformers. */
  readonly kind: string;
  readonly type: string;
  readonly path: string;
}

/**
 * Reads the modules of a sentence-transformers folder; mean pooling and length 1 if it has no modules.json. Returns (does
 * not throw) an error for unsupported modules: it matters only if the caller names no pooling.
 * @param dim width of the hidden states
 * @throws FormatError for a damaged file
 */
export async function readModules(folder: FileFolder, dim: number): Promise<EmbeddingModules | ModelError> {
  const json = await readJson(folder, 'modules.json');
  if (json === undefined) return defaultModules('mean');
  try {
    return await readEntries(folder, entriesOf(json, `${folder.name}/modules.json`), dim);
  } catch (error) {
    if (error instanceof ModelError) return error;
    throw error;
  }
}

/** @throws ModelError */
function entriesOf(json: unknown, file: string): Entry[] {
  if (!Array.isArray(json)) throw unsupported(file, 'expected a list of modules, found something else');
  const entries = json.map((module: unknown): Entry => {
    const { type, path = '' } = isObject(module) ? module : {};
    if (typeof type !== 'string' || typeof path !== 'string')
      throw unsupported(file, 'expected modules with a type and a path, found one without');
    const kind = type.startsWith('sentence_transformers.') ? type.split('.').at(-1)! : type;
    return { kind, type, path };
  });
  const known = ['Transformer', 'Pooling', 'Dense', 'LayerNorm', 'Normalize', 'Dropout'];
  const other = entries.find(({ kind }) => !known.includes(kind));
  if (other) throw unsupported(file, `expected modules ${known.join(', ')}, found ${other.type.slice(0, 120)}`);
  // Dropout has no effect outside training.
  return entries.filter(({ kind }) => kind !== 'Dropout');
}

/** @throws ModelError, FormatError */
async function readEntries(folder: FileFolder, entries: readonly Entry[], dim: number): Promise<EmbeddingModules> {
  const file = `${folder.name}/modules.json`;
  const [transformer, pooling, ...rest] = entries;
  const order = 'expected a Transformer, a Pooling and modules of single vectors, in this order';
  if (transformer?.kind !== 'Transformer') throw unsupported(file, `${order}, found ${listed(entries)}`);
  if (transformer.path !== '')
    throw unsupported(file, `expected the Transformer beside modules.json, found it in ${transformer.path}`);
  if (pooling === undefined) return { ...defaultModules('mean'), normalize: false };
  if (pooling.kind !== 'Pooling' || rest.some(({ kind }) => kind === 'Pooling' || kind === 'Transformer'))
    throw unsupported(file, `${order}, found ${listed(entries)}`);
  const how = readPooling(await configOf(folder, pooling), fileOf(folder, pooling), dim);
  const modules: VectorModule[] = [];
  let width = dim * how.poolings.length;
  for (const [i, entry] of rest.entries()) {
    const config = await configOf(folder, entry);
    checkPlace(config, fileOf(folder, entry));
    if (entry.kind === 'Normalize') {
      if (i < rest.length - 1) modules.push(normalize);
      continue;
    }
    const read = entry.kind === 'Dense' ? readDense : readLayerNorm;
    const module = await read(folder.folder(entry.path), config, width);
    modules.push(module.run);
    ({ width } = module);
  }
  return { ...how, modules, normalize: rest.at(-1)?.kind === 'Normalize' };
}

const listed = (entries: readonly Entry[]): string => entries.map(({ kind }) => kind).join(', ') || 'none';
const fileOf = (folder: FileFolder, { path }: Entry): string => `${folder.name}/${path ? `${path}/` : ''}config.json`;

/** Reads config.json of a module; older Normalize modules have none. @throws ModelError, FormatError */
async function configOf(folder: FileFolder, entry: Entry): Promise<ModuleSettings> {
  if (entry.path === '')
    throw unsupported(`${folder.name}/modules.json`, `expected a path of ${entry.kind}, found none`);
  const json = await readJson(folder.folder(entry.path), 'config.json');
  if (json === undefined && entry.kind === 'Normalize') return {};
  if (json === undefined)
    throw unsupported(fileOf(folder, entry), `expected the settings of ${entry.kind}, found no such file`);
  if (isObject(json)) return json;
  throw unsupported(
    fileOf(folder, entry),
    `expected an object with the settings of ${entry.kind}, found ${shown(json)}`,
  );
}

/** Checks that a module acts on sentence embeddings: its settings may name token embeddings instead. @throws ModelError */
function checkPlace(config: ModuleSettings, file: string): void {
  for (const key of ['module_input_name', 'module_output_name']) {
    const place = config[key] ?? 'sentence_embedding';
    if (place !== 'sentence_embedding')
      throw unsupported(file, `expected sentence_embedding as ${key}, found ${shown(place)}`);
  }
}

/** The flags of sentence-transformers before 5.4, in the order in which the pooled vectors are concatenated. */
const flags: Readonly<Record<string, Pooling>> = {
  pooling_mode_cls_token: 'cls',
  pooling_mode_max_tokens: 'max',
  pooling_mode_mean_tokens: 'mean',
  pooling_mode_mean_sqrt_len_tokens: 'mean_sqrt_len_tokens',
  pooling_mode_weightedmean_tokens: 'weightedmean',
  pooling_mode_lasttoken: 'last',
};

/** @throws ModelError */
function readPooling(
  config: ModuleSettings,
  file: string,
  dim: number,
): Pick<EmbeddingModules, 'poolings' | 'includePrompt'> {
  for (const key of ['embedding_dimension', 'word_embedding_dimension']) {
    if ((config[key] ?? dim) !== dim)
      throw unsupported(file, `expected ${dim}, the model's width, as ${key}, found ${shown(config[key])}`);
  }
  const { pooling_mode: mode, include_prompt: includePrompt = true } = config;
  if (typeof includePrompt !== 'boolean')
    throw unsupported(file, `expected true or false as include_prompt, found ${shown(includePrompt)}`);
  if (mode !== undefined) {
    const names: unknown[] = Array.isArray(mode) ? mode : [mode];
    const found = names.map(poolingNamed);
    const bad = found.indexOf(undefined);
    if (bad >= 0 || found.length === 0)
      throw unsupported(file, `expected pooling_mode to be made of ${poolings.join(', ')}, found ${shown(names[bad])}`);
    return { poolings: found as Pooling[], includePrompt };
  }
  const unknown = Object.keys(config).find(
    (key) => key.startsWith('pooling_mode_') && config[key] && !Object.hasOwn(flags, key),
  );
  if (unknown !== undefined)
    throw unsupported(file, `expected pooling modes ${Object.keys(flags).join(', ')}, found ${unknown.slice(0, 80)}`);
  const asked = Object.keys(flags).filter((key) => config[key]);
  return { poolings: asked.length === 0 ? ['mean'] : asked.map((key) => flags[key]!), includePrompt };
}
