/** Lanewise for browsers. */
import './disposal.ts';
import { browserHost } from './backend/wasm/threads/host-browser.ts';
import { Encoder } from './engine/encoder.ts';
import type { EncoderEngine } from './engine/encoder-engine.ts';
import type { Engine } from './engine/engine.ts';
import { describe, loadEncoderEngine, loadEngine, type ModelSource } from './engine/load.ts';
import { type EstimateOptions, estimateMemory as estimateIn, type MemoryEstimate } from './engine/memory-estimate.ts';
import { Model } from './engine/model.ts';
import { type LoadOptions, validateLoad } from './engine/options.ts';
import { openTokenizer as openTokenizerIn } from './engine/tokenizer.ts';
import type { HostedSource } from './hosting/hosted-model.ts';
import { loadHosted, loadHostedEncoder } from './hosting/load-hosted.ts';
import { startEngineThread } from './hosting/thread-browser.ts';
import {
  type FoundFiles,
  findFiles,
  otherModel,
  sourceForWorker,
  type WebModelSource,
  type WebSourceOptions,
} from './hosting/web-source.ts';

import type { ModelDescription } from './models/index.ts';
import type { Quantize } from './models/storage-plan.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';

export type { WebModelSource, WebSourceOptions } from './hosting/web-source.ts';
export * from './index.ts';

export interface WebLoadOptions extends LoadOptions, Omit<WebSourceOptions, 'signal'> {}

/**
 * Loads a model from an id of the hub, an address, or files or a folder that the user chose. Its engine runs in a
 * worker unless `inline` is given (docs/hosting.md). It has several threads if the page is cross-origin isolated,
 * otherwise one, with a warning through `onWarning`.
 * @throws FormatError, ModelError, HubError, OptionError, OutOfMemoryError
 */
export async function load(source: WebModelSource, options: WebLoadOptions = {}): Promise<Model> {
  const inline = (): Promise<Engine> =>
    loadFrom(async (found, given) => (await loadEngine(found, given)).engine, source, options);
  if (runsInline(options)) return new Model(await inline());
  return new Model(await loadHosted(hostedSource(source, options), apart(options)[1], inline));
}

/** Loads an encoder, which turns texts into embeddings, from the same sources as `load`. @throws as `load` */
export async function loadEncoder(source: WebModelSource, options: WebLoadOptions = {}): Promise<Encoder> {
  const inline = (): Promise<EncoderEngine> =>
    loadFrom(async (found, given) => (await loadEncoderEngine(found, given)).engine, source, options);
  if (runsInline(options)) return new Encoder(await inline());
  return new Encoder(await loadHostedEncoder(hostedSource(source, options), apart(options)[1], inline));
}

/** The tokenizer of a model, without its weights. @throws ModelError, TokenizerError, FormatError, HubError, OptionError */
export async function openTokenizer(source: WebModelSource, options: WebSourceOptions = {}): Promise<Tokenizer> {
  return fromFiles(({ folder, file }) => openTokenizerIn(folder, file), source, options);
}

/** What a model is and how `quantize` would store it. Reads headers only. @throws as `openTokenizer` */
export async function describeModel(
  source: WebModelSource,
  quantize?: Quantize,
  options: WebSourceOptions = {},
): Promise<ModelDescription> {
  return fromFiles((files) => describe(files, quantize), source, options);
}

/**
 * The memory that a model will take in a worker of this page, from its headers (docs/fit.md). @throws as `openTokenizer`
 */
export async function estimateMemory(
  source: WebModelSource,
  { endpoint, token, revision, headers, signal, ...options }: EstimateOptions & WebSourceOptions = {},
): Promise<MemoryEstimate> {
  const place = { endpoint, token, revision, headers, signal };
  return fromFiles((found) => estimateIn({ ...found, host: browserHost(true) }, options), source, place);
}

/** @throws OptionError */
const runsInline = (options: WebLoadOptions): boolean => validateLoad(apart(options)[1]).inline;

/** @throws OptionError */
function hostedSource(source: WebModelSource, options: WebLoadOptions): HostedSource {
  return { start: startEngineThread, source: [sourceForWorker(source), apart(options)[0]], name: 'the model' };
}

/** Splits the options into those of finding the files and those of loading. */
function apart(options: WebLoadOptions): [place: Omit<WebSourceOptions, 'signal'>, rest: LoadOptions] {
  const { endpoint, token, revision, headers, ...rest } = options ?? {};
  return [{ endpoint, token, revision, headers }, rest];
}

async function loadFrom<M>(
  make: (source: ModelSource, options: LoadOptions) => Promise<M>,
  source: WebModelSource,
  options: WebLoadOptions,
): Promise<M> {
  const [place, rest] = apart(options);
  const host = browserHost();
  const other = otherModel(place, rest.signal);
  const load = ({ folder, file }: FoundFiles): Promise<M> => make({ folder, file, host, other }, rest);
  return fromFiles(load, source, { ...place, signal: rest.signal });
}

async function fromFiles<T>(
  read: (files: FoundFiles) => Promise<T>,
  source: WebModelSource,
  options: WebSourceOptions,
): Promise<T> {
  const found = await findFiles(source, options);
  try {
    return await read(found);
  } catch (error) {
    throw found.explain(error);
  }
}
