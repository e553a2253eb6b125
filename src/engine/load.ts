/** From a folder of files to a model that runs. */
import type { Backend, BackendOptions, TensorData } from '../backend/backend.ts';
import { createReferenceBackend } from '../backend/reference/backend.ts';
import { createWasmBackend } from '../backend/wasm/create.ts';
import type { WasmHost } from '../backend/wasm/host.ts';
import { ModelError, OptionError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { type CheckpointTensor, openCheckpoint, readJson, readText } from '../formats/checkpoint.ts';
import { buildModel, type ModelDescription } from '../models/index.ts';
import { defaultPolicy, parsePolicy } from '../models/policy.ts';
import { loadTokenizer } from '../tokenizer/load.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { Model } from './model.ts';
import { type LoadOptions, type LoadSettings, validateLoad } from './options.ts';

/** Rows of one forward: enough that weights are read rarely, few enough that an abort is soon heard. */
const MAX_ROWS = 128;
/** Sequences of one forward, and rows of logits: 64 MB of them at most. */
const MAX_WANTED = 64;
const LOGITS_BYTES = 64e6;
/** Contexts are as long as the model's, up to here, unless asked for. */
const DEFAULT_CONTEXT = 4096;

export interface ModelSource {
  readonly folder: FileFolder;
  /** A .safetensors file of the folder; default: what the folder has. */
  readonly file?: string;
  readonly host: WasmHost;
}

/** @throws FormatError, ModelError, OptionError, OutOfMemoryError; nothing stays open then */
export async function loadModel({ folder, file, host }: ModelSource, options: LoadOptions = {}): Promise<Model> {
  const settings = validateLoad(options);
  const config = await readConfig(folder);
  const checkpoint = await openCheckpoint(folder, file);
  let backend: Backend | undefined;
  try {
    const description = buildModel(config, checkpoint.tensors, { policy: settings.policy, taps: settings.hidden });
    const contextLength = contextOf(description.config.contextLength, settings);
    const tokenizer = await readTokenizer(folder);
    const maxWanted = Math.max(1, Math.min(MAX_WANTED, Math.floor(LOGITS_BYTES / (4 * description.config.vocab))));
    const { onProgress, onWarning, signal, threads } = settings;
    const backendOptions: BackendOptions = {
      plan: description.plan,
      maxRows: MAX_ROWS,
      maxWanted,
      contextLength,
      tensor: (name) => tensorData(checkpoint.tensors.get(name)!),
      onProgress: onProgress && ((_, done, total) => onProgress(done, total)),
      signal,
    };
    backend =
      settings.backend === 'reference'
        ? await createReferenceBackend(backendOptions)
        : await createWasmBackend({ ...backendOptions, host, threads, onWarning });
    const generation = await readJson(folder, 'generation_config.json');
    const eosTokenIds = [...description.eosTokenIds, ...eosOf(generation)];
    const close = (): Promise<void> => checkpoint.close();
    return new Model({
      name: folder.name,
      description,
      backend,
      tokenizer,
      contextLength,
      eosTokenIds,
      quantize: settings.policy.text,
      close,
    });
  } catch (error) {
    await backend?.dispose();
    await checkpoint.close();
    throw error;
  }
}

/** What a model is and how a policy would store it, from headers alone. */
export async function describe(
  { folder, file }: Omit<ModelSource, 'host'>,
  quantize = defaultPolicy,
): Promise<ModelDescription> {
  const policy = parsePolicy(quantize);
  const config = await readConfig(folder);
  const checkpoint = await openCheckpoint(folder, file);
  try {
    return buildModel(config, checkpoint.tensors, { policy });
  } finally {
    await checkpoint.close();
  }
}

async function readConfig(folder: FileFolder): Promise<unknown> {
  const config = await readJson(folder, 'config.json');
  if (config !== undefined) return config;
  throw new ModelError('NoConfig', `${folder.name}: expected a config.json beside the weights, found none`);
}

function contextOf(most: number, { contextLength = Math.min(most, DEFAULT_CONTEXT) }: LoadSettings): number {
  if (contextLength > most)
    throw new OptionError('contextLength', `at most ${most}, what the model was made for`, contextLength);
  return contextLength;
}

export const tensorData = ({ dtype, shape, byteLength, readInto }: CheckpointTensor): TensorData => ({
  // The weights manifest has refused every other type.
  dtype: dtype.toLowerCase() as TensorData['dtype'],
  shape,
  byteLength,
  readInto,
});

/** Undefined where the folder has none: such models take token ids. */
async function readTokenizer(folder: FileFolder): Promise<Tokenizer | undefined> {
  const tokenizerJson = await readText(folder, 'tokenizer.json');
  if (tokenizerJson === undefined) return undefined;
  return loadTokenizer({
    tokenizerJson,
    tokenizerConfig: await readText(folder, 'tokenizer_config.json'),
    name: folder.name,
  });
}

/** End tokens of generation_config.json: a number or a list. */
function eosOf(generation: unknown): number[] {
  const ids =
    typeof generation === 'object' && generation !== null && 'eos_token_id' in generation
      ? generation.eos_token_id
      : [];
  return (Array.isArray(ids) ? ids : [ids]).filter((id) => Number.isInteger(id));
}
