/** Loads a model from its files. */
import type { Backend, BackendOptions } from '../backend/backend.ts';
import type { Explanation } from '../backend/explanation.ts';
import { createReferenceBackend } from '../backend/reference/backend.ts';
import { createWasmBackend } from '../backend/wasm/create.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import { ModelDrafter } from '../drafting/model-drafter.ts';
import { defaultModules, type EmbeddingModules, readModules } from '../embedding/modules.ts';
import { ggufPooling } from '../embedding/pooling.ts';
import { noSettings, readSentenceSettings, type SentenceSettings } from '../embedding/sentence-settings.ts';
import { FormatError, type LanewiseError, ModelError, OptionError, TemplateError, TokenizerError } from '../errors.ts';
import { Evaluator } from '../evaluate/evaluator.ts';
import { TextEvaluator } from '../evaluate/text-evaluator.ts';
import { nextTurn } from '../event-loop.ts';
import type { FileFolder, NamedFiles } from '../formats/bytes.ts';
import type { ModelKind } from '../models/architecture.ts';
import { buildModel, encoderTypes, type ModelDescription } from '../models/index.ts';
import { parsePolicy, parseQuantize } from '../models/policy.ts';
import { type Quantize, quantizeText } from '../models/storage-plan.ts';
import { tapped } from '../plan/taps.ts';
import { type TraceProcess, traced } from '../profile/trace.ts';
import { PromptEncoder } from '../prompts/prompt.ts';
import { RequestRecorder } from '../recording/recorder.ts';
import { weightChecksums } from '../recording/weights.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { readChatFormat } from './chat-files.ts';
import { Encoder } from './encoder.ts';
import { endTokenSources, readEnds } from './end-tokens.ts';
import { explainDecoder, explainLoad, explainTokenizer } from './explain.ts';
import { LoadTrace } from './load-trace.ts';
import { LocalEncoder } from './local-encoder.ts';
import { LocalEngine } from './local-engine.ts';
import { Model } from './model.ts';
import { type OpenModel, openModel } from './open.ts';
import { type DraftOptions, type LoadOptions, type LoadSettings, validateLoad } from './options.ts';
import { recordingHead } from './recording-head.ts';
import { checkSameTokens, type Tokens } from './same-tokens.ts';
import { readSamplingDefaults } from './sampling-defaults.ts';
import { cacheSize, contextOf, rowsOf } from './sizes.ts';
import { lastOrdinary, withinVocabulary } from './tokenizer.ts';
import { makeTokenizer, readTokenizerSource, type TokenizerSource } from './tokenizer-source.ts';

/** Largest KV cache of a draft model, as a share of the memory allowed for a model's cache. */
const DRAFT_MEMORY = 1 / 4;

export interface ModelSource {
  readonly folder: FileFolder;
  /** A .safetensors or .gguf file of the folder. Default: found in the folder. */
  readonly file?: string;
  readonly host: WasmHost;
  /** File access for saved caches; undefined in browsers. */
  readonly files?: NamedFiles;
  /** Finds another model, for drafts, by its path or id. */
  readonly other?: (path: string) => Promise<ModelSource>;
}

/**
 * Loads a model whose engine runs in the calling thread.
 * @throws FormatError, ModelError, OptionError, OutOfMemoryError, after closing all files
 */
export async function loadModel(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
  return new Model((await loadEngine(source, options)).engine);
}

export interface LoadedEngine {
  readonly engine: LocalEngine;
  /** The data that the tokenizer was built from. */
  readonly tokenizerSource: TokenizerSource | undefined;
}

/** @throws FormatError, ModelError, OptionError, OutOfMemoryError, after closing all files */
export function loadEngine(source: ModelSource, options: LoadOptions = {}): Promise<LoadedEngine> {
  return openAs('decoder', source, options, async ({ files, ...loaded }, settings) => {
    const { name, description, backend, tokenizer, tokenizerError, contextLength, quantize } = loaded;
    const chat = await readChatFormat(source.folder, files, tokenizer);
    if (chat.format instanceof TemplateError) settings.onWarning?.(`${chat.format.message}; chats will not work`);
    const named = files.metadata ? {} : await readEnds(source.folder);
    const ends = endTokenSources({
      config: files.config,
      ...named,
      metadata: files.metadata,
      tokenizer,
      vocab: description.config.vocab,
    });
    const { vocab, contextLength: longestContext } = description.config;
    const prompts = new PromptEncoder({
      name,
      tokenizer,
      tokenizerError,
      chat,
      vocab,
      contextLength,
      longestContext,
    });
    const evaluator = new Evaluator({ name, description, backend, trace: loaded.trace });
    const samplingDefaults = await readSamplingDefaults(source.folder, files.metadata, settings.onWarning);
    const tokens = { name, vocab, tokenizer };
    const draft = settings.draft && (await loadDraft(source, settings, settings.draft, { tokens, contextLength }));
    const explanations = [
      ...loaded.explanations,
      ...explainDecoder({ ends, chat, tokenizer, draft: draft?.model, options }),
    ];
    const info = { quantize, contextLength, eosTokenIds: new Set(ends.keys()), samplingDefaults, explanations };
    const { onWarning } = settings;
    const recorder =
      settings.record &&
      new RequestRecorder(settings.record, recordingHead({ ...loaded, weights: loaded.weights!, settings }));
    const parts = { info, evaluator, prompts, scheduling: settings, draft, onWarning, files: source.files, recorder };
    return { engine: new LocalEngine(parts), tokenizerSource: loaded.tokenizerSource };
  });
}

/**
 * Loads an encoder that runs in the calling thread.
 * @throws FormatError, ModelError, OptionError, OutOfMemoryError, after closing all files
 */
export async function loadEncoderModel(source: ModelSource, options: LoadOptions = {}): Promise<Encoder> {
  return new Encoder((await loadEncoderEngine(source, options)).engine);
}

export interface LoadedEncoder {
  readonly engine: LocalEncoder;
  /** The data that the tokenizer was built from. */
  readonly tokenizerSource: TokenizerSource | undefined;
}

/** @throws what a load throws; OptionError for a model with other tokens */
async function loadDraft(
  source: ModelSource,
  { threads, revectorize, kvCache, backend, cacheTokens, trace, onWarning, signal }: LoadSettings,
  { path, quantize }: DraftOptions,
  model: { readonly tokens: Tokens; readonly contextLength: number },
): Promise<ModelDrafter> {
  if (path !== undefined && !source.other) throw new OptionError('draft.path', 'left out here', path);
  const found = path === undefined ? source : await source.other!(path);
  const options = { quantize, threads, revectorize, kvCache, backend, cacheTokens, trace, onWarning, signal };
  return openAs(
    'decoder',
    found,
    options,
    async ({ name, description, backend, tokenizer, contextLength, trace }) => {
      if (found !== source) checkSameTokens(model.tokens, { name, vocab: description.config.vocab, tokenizer });
      const evaluator = new Evaluator({ name, description, backend, trace });
      return new ModelDrafter({ evaluator, contextLength });
    },
    { mostContext: model.contextLength, memoryShare: DRAFT_MEMORY },
  );
}

/** @throws FormatError, ModelError, OptionError, OutOfMemoryError, after closing all files */
export function loadEncoderEngine(source: ModelSource, options: LoadOptions = {}): Promise<LoadedEncoder> {
  return openAs('encoder', source, options, async ({ files, ...loaded }, { contextLength, maxQueue, onWarning }) => {
    const { config } = loaded.description;
    const { maxTokens = config.contextLength, lengthFile } = loaded.sentence;
    // Texts are cut silently only at the limit of sentence-transformers, not at Lanewise's default context.
    const asked = contextLength !== undefined || loaded.contextLength >= Math.min(maxTokens, config.contextLength);
    const modules = await modulesOf(source.folder, files, loaded);
    const truncates = lengthFile !== undefined && asked;
    const evaluator = new TextEvaluator(loaded);
    const engine = new LocalEncoder({ ...loaded, evaluator, modules, truncates, maxQueue, onWarning });
    return { engine, tokenizerSource: loaded.tokenizerSource };
  });
}

async function modulesOf(
  folder: FileFolder,
  { metadata }: OpenModel,
  { name, description }: Pick<Loaded, 'name' | 'description'>,
): Promise<EmbeddingModules | LanewiseError> {
  if (!metadata) return readModules(folder, description.config.dim);
  const pooling = ggufPooling(metadata, name);
  return pooling instanceof ModelError ? pooling : defaultModules(pooling);
}

/** The parts of a loaded model of any kind. */
interface Loaded {
  readonly files: OpenModel;
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly tokenizer: Tokenizer | undefined;
  readonly tokenizerSource: TokenizerSource | undefined;
  /** The error if the model's tokenizer is invalid. */
  readonly tokenizerError: TokenizerError | undefined;
  readonly contextLength: number;
  /** Settings of an encoder's folder. */
  readonly sentence: SentenceSettings;
  readonly quantize: string;
  readonly trace: TraceProcess | undefined;
  readonly explanations: readonly Explanation[];
  /** Checksums of the weights, if requests are recorded. */
  readonly weights: Readonly<Record<string, string>> | undefined;
}

/** Limits of a draft model. */
interface Bounds {
  /** Upper bound of its context. */
  readonly mostContext?: number;
  /** Share of the memory allowed for a model's cache. */
  readonly memoryShare?: number;
}

/** Loads a model. If several threads use up the file descriptors, of which each needs some, loads with one thread. */
async function openAs<M>(
  kind: ModelKind,
  source: ModelSource,
  options: LoadOptions,
  make: (loaded: Loaded, settings: LoadSettings) => Promise<M>,
  bounds: Bounds = {},
): Promise<M> {
  try {
    return await openOnce(kind, source, options, make, bounds);
  } catch (error) {
    const tooMany = error instanceof FormatError && error.code === 'TooManyOpenFiles';
    if (!tooMany || options.threads === 1 || options.backend === 'reference') throw error;
    options.onWarning?.(`one thread: too many open files; raise their limit (ulimit -n)`);
    await source.host.endPrestarted?.();
    return openOnce(kind, source, { ...options, threads: 1 }, make, bounds);
  }
}

/** The name of a folder without the path to it. */
const lastPart = (path: string): string => path.split(/[\\/]/).findLast((part) => part !== '') ?? path;

async function openOnce<M>(
  kind: ModelKind,
  { folder, file, host }: ModelSource,
  options: LoadOptions,
  make: (loaded: Loaded, settings: LoadSettings) => Promise<M>,
  { mostContext, memoryShare = 1 }: Bounds,
): Promise<M> {
  const settings = validateLoad(options);
  const trace = settings.trace?.process(file ?? lastPart(folder.name));
  const loadTrace = trace && new LoadTrace(trace);
  const opening = performance.now();
  const files = await openModel(folder, file).catch((error) => {
    loadTrace?.end();
    throw error;
  });
  loadTrace?.add({ name: 'open files', start: opening, end: performance.now() });
  const name = files.metadata || file ? `${folder.name}/${file ?? files.files[0]}` : folder.name;
  const quantize = settings.quantize ?? files.defaultPolicy;
  let loading: Promise<Backend> | undefined;
  try {
    const policy = parseQuantize(quantize);
    const { origin } = files;
    const { kvCache, taps } = settings;
    const { headDiffers } = files;
    const describing = performance.now();
    const built = buildModel(files.config, files.tensors, { policy, kvCache, origin, headDiffers });
    const description = { ...built, plan: tapped(built.plan, settings.record ? 'hidden' : taps) };
    loadTrace?.add({ name: 'describe the model', start: describing, end: performance.now() });
    for (const notice of description.notices) settings.onWarning?.(`${name}: ${notice}`);
    checkKind(name, description, kind);
    if (kind === 'encoder') refuseDecoderOptions(settings);
    const sentence = kind === 'encoder' && !files.metadata ? await readSentenceSettings(folder) : noSettings;
    const contextLength = contextOf(description, settings, sentence.maxTokens, mostContext);
    const { onProgress, onWarning, signal, threads, revectorize } = settings;
    const cache = cacheSize(kind, settings, contextLength, description, host, memoryShare);
    const backendOptions: BackendOptions = {
      plan: description.plan,
      ...rowsOf(description, contextLength),
      cache,
      tensor: (name) => files.tensor(name),
      onProgress: onProgress && ((_, done, total) => onProgress(done, total)),
      onSpan: loadTrace?.add,
      signal,
    };
    loading =
      settings.backend === 'reference'
        ? createReferenceBackend(backendOptions)
        : createWasmBackend({ ...backendOptions, host, threads, revectorize, onWarning });
    // Awaited below. Until then a failure of the tokenizer may come first and leave this rejection unhandled.
    loading.catch(() => {});
    let tokenizer: Tokenizer | undefined;
    let tokenizerSource: TokenizerSource | undefined;
    let tokenizerError: TokenizerError | undefined;
    try {
      // This thread reads the tokenizer while the others load weights; the turn lets them start first.
      await nextTurn();
      const whole = await traced(trace, 'read the tokenizer', async () => {
        tokenizerSource = await readTokenizerSource(folder, files);
        return tokenizerSource && makeTokenizer(tokenizerSource, onWarning);
      });
      const { vocab } = description.config;
      const beyond = whole && lastOrdinary(whole);
      if (beyond !== undefined && beyond >= vocab)
        onWarning?.(`${name}: the tokenizer has ids up to ${beyond}, the model up to ${vocab - 1}`);
      tokenizer = whole && withinVocabulary(whole, vocab, name);
    } catch (error) {
      // A decoder works without tokenizer, with token ids.
      if (!(error instanceof TokenizerError) || kind === 'encoder') throw error;
      tokenizerError = error;
      onWarning?.(`${error.message}; texts will not work, token ids do`);
    }
    const backend = await loading;
    const weights = settings.record && (await weightChecksums(backendOptions));
    const model = {
      files,
      name,
      description,
      backend,
      tokenizer,
      tokenizerSource,
      tokenizerError,
      contextLength,
      trace,
      weights,
    };
    const named = { ...model, quantize: quantizeText(quantize) };
    const facts = { ...named, options, contextFile: sentence.lengthFile, cache, host };
    const explanations = [...explainLoad(facts), ...explainTokenizer(model)];
    return await make({ ...named, sentence, explanations }, settings);
  } catch (error) {
    await loading?.then(
      (backend) => backend.dispose(),
      () => {},
    );
    throw error;
  } finally {
    loadTrace?.end();
    // A model has all of its files in memory.
    await files.close();
  }
}

/** @throws ModelError NotADecoder, NotAnEncoder */
function checkKind(name: string, { kind, modelType }: ModelDescription, expected: ModelKind): void {
  if (kind === expected) return;
  throw expected === 'decoder'
    ? new ModelError(
        'NotADecoder',
        `${name}: expected a model that generates text, found the encoder ${modelType}; embed texts with it (loadEncoder, lanewise embed)`,
      )
    : new ModelError(
        'NotAnEncoder',
        `${name}: expected an encoder, found ${modelType}, which generates text (load, lanewise generate); embed with one of ${encoderTypes.join(', ')}`,
      );
}

/** @throws OptionError */
function refuseDecoderOptions({ kvCache, cacheTokens, cacheMemory, draft, record }: LoadSettings): void {
  if (record) throw new OptionError('record', 'left out: an encoder generates no text', record);
  if (draft) throw new OptionError('draft', 'left out: an encoder generates no text', draft);
  const given = { kvCache: kvCache === 'f32' ? undefined : kvCache, cacheTokens, cacheMemory };
  for (const [name, value] of Object.entries(given))
    if (value !== undefined) throw new OptionError(name, 'left out: an encoder keeps no keys and values', value);
}

/** Describes a model and how a policy or plan would store it, from its headers. */
export async function describe(
  { folder, file }: Omit<ModelSource, 'host'>,
  quantize?: Quantize,
): Promise<ModelDescription> {
  const asked = quantize === undefined ? undefined : parseQuantize(quantize);
  const files = await openModel(folder, file);
  try {
    const policy = asked ?? parsePolicy(files.defaultPolicy);
    return buildModel(files.config, files.tensors, { policy, origin: files.origin, headDiffers: files.headDiffers });
  } finally {
    await files.close();
  }
}
