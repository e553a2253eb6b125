/** Lanewise for Node. */
import './disposal.ts';
import { basename, dirname, resolve } from 'node:path';
import { q8Layout } from './backend/wasm/choosing/choice.ts';
import { chooseKernels } from './backend/wasm/choosing/probe.ts';
import { measureRoofs, type Roofs } from './backend/wasm/measuring/roof.ts';
import { nodeHost } from './backend/wasm/threads/host-node.ts';
import { ChatTemplate } from './chat/template.ts';
import { checkOutput, type QuantizeOptions, type QuantizeReport, writeQuantized } from './convert/quantize-node.ts';
import { openChatFormat } from './engine/chat-files.ts';
import { embeddedFolder, findEmbedded } from './engine/embedded-node.ts';
import { Encoder } from './engine/encoder.ts';
import type { EncoderEngine } from './engine/encoder-engine.ts';
import type { Engine } from './engine/engine.ts';
import { describe, loadEncoderEngine, loadEngine, type ModelSource } from './engine/load.ts';
import { type EstimateOptions, estimateMemory as estimateIn, type MemoryEstimate } from './engine/memory-estimate.ts';
import { Model } from './engine/model.ts';
import { type LoadOptions, validateLoad } from './engine/options.ts';
import { openTokenizer as openTokenizerIn } from './engine/tokenizer.ts';
import { ModelError } from './errors.ts';
import { nodeFolder } from './formats/adapters/node.ts';
import { StreamedFile } from './formats/adapters/streamed-file.ts';
import { readText } from './formats/json.ts';
import type { HostedSource } from './hosting/hosted-model.ts';
import { loadHosted, loadHostedEncoder } from './hosting/load-hosted.ts';
import { locatePath, statusOf } from './hosting/locate-node.ts';
import { startEngineThread } from './hosting/thread-node.ts';
import type { DownloadOptions } from './hub/download.ts';
import type { RangedModel } from './hub/ranges.ts';
import { filesAt } from './hub/remote.ts';
import type { ModelDescription } from './models/index.ts';
import type { Quantize } from './models/storage-plan.ts';
import { Trace } from './profile/trace.ts';
import type { ChatFormat } from './prompts/chat.ts';
import { Recording } from './recording/recorder.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

export type { CalibrationText } from './convert/calibrated.ts';
export type { ConvertedTensor, WritableType } from './convert/convert.ts';
export type { QuantizeOptions, QuantizeReport } from './convert/quantize-node.ts';
export type { Finding, FindingStatus } from './diagnose/finding.ts';
export { type DiagnoseOptions, diagnoseMachine } from './diagnose/machine.ts';
export {
  removeUnfinished,
  watchUnfinished,
  writeAtomically,
  writeGguf,
  writeSafeTensors,
  writeSafeTensorsParts,
} from './formats/adapters/node.ts';
export { type Download, type DownloadOptions, download } from './hub/download.ts';
export { type HubModelOptions, hubModel, modelAt } from './hub/model.ts';
export { type HubId, parseHubId } from './hub/names.ts';
export * from './index.ts';

/**
 * The folder of the embedded model, which is the package `lanewise-stories`. If it is not installed, functions that are
 * given this path look for it again and throw an error that says how to install it (engine/embedded-node.ts).
 */
export const embeddedModel: string = embeddedFolder(import.meta.url);

/**
 * Loads a model: a folder, a .gguf file, a .safetensors file beside its config.json, or an id of the hub such as
 * `openai-community/gpt2`, `org/name@revision` or `org/name-GGUF:Q4_K_M` (docs/hub.md); by default the embedded model. Its
 * engine runs in a separate thread unless `inline` is given (docs/hosting.md).
 * @throws FormatError, ModelError, HubError, OptionError, OutOfMemoryError
 */
export async function load(path: string = embeddedModel, options: LoadOptions = {}): Promise<Model> {
  const inline = async (): Promise<Engine> => (await loadEngine(await locate(path, options.signal), options)).engine;
  if (runsInline(options)) return new Model(await inline());
  return new Model(await loadHosted(hostedSource(path), options, inline));
}

/**
 * Loads an encoder, which turns texts into embeddings: from a folder, a file, or an id of the hub, as `load`.
 * @throws FormatError, ModelError, HubError, OptionError, OutOfMemoryError
 */
export async function loadEncoder(path: string, options: LoadOptions = {}): Promise<Encoder> {
  const inline = async (): Promise<EncoderEngine> =>
    (await loadEncoderEngine(await locate(path, options.signal), options)).engine;
  if (runsInline(options)) return new Encoder(await inline());
  return new Encoder(await loadHostedEncoder(hostedSource(path), options, inline));
}

/** If V8 cannot start a thread, it ends the process. @throws OptionError */
const runsInline = (options: LoadOptions): boolean => validateLoad(options).inline || !nodeHost().threads.possible;

function hostedSource(path: string): HostedSource {
  const source = placeOf(path);
  return { start: startEngineThread, source, name: source };
}

/**
 * Describes a model and how it would be stored with `quantize`. Reads headers only.
 * @throws FormatError, ModelError, OptionError
 */
export async function describeModel(path: string = embeddedModel, quantize?: Quantize): Promise<ModelDescription> {
  return describe(await locate(path), quantize);
}

/**
 * The memory that a model will take, by storage policy, context and storage of keys and values, before any weights are
 * downloaded or loaded: of a model at the hub, headers and settings are read (docs/fit.md).
 * @throws FormatError, ModelError, HubError, OptionError
 */
export async function estimateMemory(
  path: string = embeddedModel,
  { revision, signal, ...options }: EstimateOptions & LookOptions = {},
): Promise<MemoryEstimate> {
  const { folder, file } = await look(path, { revision, signal });
  return estimateIn({ folder, file, host: nodeHost() }, options);
}

/**
 * Writes a model to one .gguf or .safetensors file, which gets its name when it is complete and synced. Beside a
 * .safetensors file, config.json and the files of the tokenizer are written if they do not exist.
 * @throws FormatError, ModelError, OptionError
 */
export async function quantizeModel(input: string, output: string, options: QuantizeOptions): Promise<QuantizeReport> {
  await checkOutput(output, options);
  return writeQuantized(await locate(input, options.signal), output, options);
}

/** Measures this machine's limits: rates of memory reads and of tile loops. @param options `revectorize` as for `load` */
export function measureMachine(
  threads?: number,
  options: { revectorize?: boolean; turns?: number } = {},
): Promise<Roofs> {
  const { revectorize = true, turns } = options;
  const node = nodeHost();
  const host = { ...node, widens: node.widens && revectorize };
  const choice = chooseKernels(host);
  return measureRoofs(host, { threads: threads ?? host.cores, wide: choice.wide, q8: q8Layout(choice), turns });
}

/**
 * A trace that is written to a file while events come: `load(model, { trace })`, then `trace.end()`. The file gets its name
 * at the end, or if the process ends earlier. @throws LanewiseError NotWritten
 */
export function traceToFile(path: string): Trace {
  const file = new StreamedFile(path);
  const trace = new Trace(file.write, { close: file.close });
  file.complete = () => trace.endNow();
  return trace;
}

/**
 * A recording that is written to a file, a line for each event: `load(model, { record })`, then `record.end()` after
 * `model.dispose()`. The file gets its name at the end, or if the process ends earlier.
 * @param source what the user named the model, for the replay; empty: the embedded model
 * @throws LanewiseError NotWritten, from `end` too
 */
export function recordToFile(path: string, source?: string): Recording {
  const file = new StreamedFile(path);
  const encoder = new TextEncoder();
  return new Recording((entry) => file.write(encoder.encode(`${JSON.stringify(entry)}\n`)), {
    source,
    close: file.close,
  });
}

/** Options for models at the hub. */
export type LookOptions = Pick<DownloadOptions, 'revision' | 'signal'>;

/**
 * The tokenizer of a model, without its weights: a folder, a tokenizer.json, a SentencePiece .model, a .gguf file, an id of
 * the hub.
 * @throws ModelError, TokenizerError, FormatError, HubError
 */
export async function openTokenizer(path: string = embeddedModel, options: LookOptions = {}): Promise<Tokenizer> {
  const found = await filesAt(path === embeddedModel ? findEmbedded(import.meta.url) : path, options);
  if (typeof found !== 'string') return openTokenizerIn(found.folder, found.file);
  const full = resolve(found);
  const status = await statusOf(full);
  if (!status) throw new ModelError('NoModel', `${path}: expected a tokenizer or a model, found nothing there`);
  if (status.isDirectory()) return openTokenizerIn(nodeFolder(full));
  return openTokenizerIn(nodeFolder(dirname(full)), basename(full));
}

/**
 * The chat template of a model, without its weights: of a folder, a .gguf file, an id of the hub, or a .jinja file itself.
 * @throws ModelError, TemplateError, FormatError, HubError
 */
export async function openChatTemplate(path: string = embeddedModel, options: LookOptions = {}): Promise<ChatFormat> {
  if (path.endsWith('.jinja')) {
    const full = resolve(path);
    const text = await readText(nodeFolder(dirname(full)), basename(full));
    if (text === undefined) throw new ModelError('NoModel', `${path}: expected a chat template, found no such file`);
    return { template: new ChatTemplate(text), bosToken: undefined, eosToken: undefined };
  }
  const { folder, file } = await look(path, options);
  return openChatFormat(folder, file);
}

/**
 * The files of a model for uses that need no weights: local, or at the hub, where they are read by ranges without caching.
 * @throws ModelError, HubError if there is no such folder or file
 */
export async function look(given: string, options: LookOptions = {}): Promise<RangedModel & { remote: boolean }> {
  const found = await filesAt(given === embeddedModel ? findEmbedded(import.meta.url) : given, options);
  return typeof found === 'string' ? { ...(await locate(found)), remote: false } : { ...found, remote: true };
}

/**
 * The files of a model given by a path or an id of the hub; a model that the cache lacks is downloaded.
 * @throws OptionError; ModelError, HubError if there is no such folder or file
 */
export async function locate(given: string, signal?: AbortSignal): Promise<ModelSource> {
  return locatePath(placeOf(given), signal);
}

/** The given path; for the embedded model it is looked up again. */
const placeOf = (given: string): string => (given === embeddedModel ? findEmbedded(import.meta.url) : given);
