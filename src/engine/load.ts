/** From a folder of files to a model that runs. */
import type { Backend, BackendOptions } from '../backend/backend.ts';
import { createReferenceBackend } from '../backend/reference/backend.ts';
import { createWasmBackend } from '../backend/wasm/create.ts';
import type { WasmHost } from '../backend/wasm/host.ts';
import { LanewiseError, OptionError, TemplateError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { readJson } from '../formats/checkpoint.ts';
import { buildModel, type ModelDescription } from '../models/index.ts';
import { parsePolicy } from '../models/policy.ts';
import { readChatFormat } from './chat.ts';
import { Model } from './model.ts';
import { openModel } from './open.ts';
import { type LoadOptions, type LoadSettings, validateLoad } from './options.ts';
import { tokenizerBeside } from './tokenizer.ts';

/** Rows of one forward: enough that weights are read rarely, few enough that an abort is soon heard. */
const MAX_ROWS = 128;
/** Sequences of one forward, and rows of logits: 64 MB of them at most. */
const MAX_WANTED = 64;
const LOGITS_BYTES = 64e6;
/** Contexts are as long as the model's, up to here, unless asked for. */
const DEFAULT_CONTEXT = 4096;

export interface ModelSource {
  readonly folder: FileFolder;
  /** A .safetensors or .gguf file of the folder; default: what the folder has. */
  readonly file?: string;
  readonly host: WasmHost;
}

/** @throws FormatError, ModelError, OptionError, OutOfMemoryError; nothing stays open then */
export async function loadModel({ folder, file, host }: ModelSource, options: LoadOptions = {}): Promise<Model> {
  const settings = validateLoad(options);
  const files = await openModel(folder, file);
  const quantize = settings.quantize ?? files.defaultPolicy;
  let backend: Backend | undefined;
  try {
    const policy = parsePolicy(quantize);
    const { origin } = files;
    const description = buildModel(files.config, files.tensors, { policy, taps: settings.hidden, origin });
    const contextLength = contextOf(description.config.contextLength, settings);
    const tokenizer = await tokenizerBeside(folder, files.metadata);
    const chat = await readChatFormat(folder, files.metadata, tokenizer);
    if (chat instanceof TemplateError) settings.onWarning?.(`${chat.message}; chats will not work`);
    const maxWanted = Math.max(1, Math.min(MAX_WANTED, Math.floor(LOGITS_BYTES / (4 * description.config.vocab))));
    const { onProgress, onWarning, signal, threads } = settings;
    const backendOptions: BackendOptions = {
      plan: description.plan,
      maxRows: MAX_ROWS,
      maxWanted,
      contextLength,
      tensor: (name) => files.tensor(name),
      onProgress: onProgress && ((_, done, total) => onProgress(done, total)),
      signal,
    };
    backend =
      settings.backend === 'reference'
        ? await createReferenceBackend(backendOptions)
        : await createWasmBackend({ ...backendOptions, host, threads, onWarning });
    const generation = files.metadata ? undefined : await readJson(folder, 'generation_config.json');
    const endOfTurn = chat instanceof LanewiseError || !chat.eosToken ? undefined : tokenizer?.id(chat.eosToken);
    const eosTokenIds = [
      ...description.eosTokenIds,
      ...eosOf(generation),
      ...(endOfTurn === undefined ? [] : [endOfTurn]),
    ];
    const close = (): Promise<void> => files.close();
    return new Model({
      name: files.metadata ? `${folder.name}/${files.files[0]}` : folder.name,
      description,
      backend,
      tokenizer,
      chat,
      contextLength,
      eosTokenIds,
      quantize,
      close,
    });
  } catch (error) {
    await backend?.dispose();
    await files.close();
    throw error;
  }
}

/** What a model is and how a policy would store it, from headers alone. */
export async function describe(
  { folder, file }: Omit<ModelSource, 'host'>,
  quantize?: string,
): Promise<ModelDescription> {
  const asked = quantize === undefined ? undefined : parsePolicy(quantize);
  const files = await openModel(folder, file);
  try {
    const policy = asked ?? parsePolicy(files.defaultPolicy);
    return buildModel(files.config, files.tensors, { policy, origin: files.origin });
  } finally {
    await files.close();
  }
}

function contextOf(most: number, { contextLength = Math.min(most, DEFAULT_CONTEXT) }: LoadSettings): number {
  if (contextLength > most)
    throw new OptionError('contextLength', `at most ${most}, what the model was made for`, contextLength);
  return contextLength;
}

/** End tokens of generation_config.json: a number or a list. */
function eosOf(generation: unknown): number[] {
  const ids =
    typeof generation === 'object' && generation !== null && 'eos_token_id' in generation
      ? generation.eos_token_id
      : [];
  return (Array.isArray(ids) ? ids : [ids]).filter((id) => Number.isInteger(id));
}
