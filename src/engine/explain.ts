/** What a load and a request decided, and why: one list, with stable keys. */
import type { Backend, CacheSize } from '../backend/backend.ts';
import { type Explanation, optionOr } from '../backend/explanation.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import { LanewiseError } from '../errors.ts';
import type { ModelDescription } from '../models/index.ts';
import type { ChatFiles } from '../prompts/chat.ts';
import { kvStorages } from '../quant/kv-cache.ts';
import { type GenerateOptions, generateTable, optionNames } from '../schedule/generation-options.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { OpenModel } from './open.ts';
import { DEFAULT_CONTEXT, type LoadOptions } from './options.ts';
import type { SamplingDefaults } from './sampling-defaults.ts';
import { fileOf, roleFrom, type TokenizerSource } from './tokenizer-source.ts';

type Explained = readonly Explanation[];

/** An explanation without absent fields. */
function explained(key: string, value: Explanation['value'], from: string, why?: string): Explanation {
  return { key, value, from, ...(why !== undefined && { why }) };
}

export interface LoadFacts {
  readonly name: string;
  readonly files: Pick<OpenModel, 'files' | 'metadata'>;
  readonly description: ModelDescription;
  readonly options: LoadOptions;
  /** Name of the storage policy or plan. */
  readonly quantize: string;
  readonly contextLength: number;
  /** The setting of the model's files that limits the context, if one does. */
  readonly contextFile: string | undefined;
  readonly cache: CacheSize;
  readonly backend: Backend;
  readonly host: WasmHost;
}

/** Decisions about a model of any kind. */
export function explainLoad(facts: LoadFacts): Explained {
  const { name, files, description, options, backend } = facts;
  const { modelType, kind, parameters, notices } = description;
  const config = files.metadata ? 'GGUF metadata' : 'config.json';
  const { weights, activations } = backend.memory();
  return [
    explained('model.name', name, 'files', files.files.join(', ')),
    explained('model.type', modelType, config),
    explained('model.kind', kind, config),
    explained('model.parameters', parameters, 'tensors'),
    explained('model.notices', notices.length, config, notices.join('; ') || undefined),
    explained('engine.thread', 'calling', options.inline ? 'option inline' : 'machine'),
    ...storages(facts),
    ...backend.explain(),
    explained('memory.weights', weights, 'plan', 'bytes, padding included'),
    explained('memory.activations', activations, 'plan', 'bytes of rows, tapes, tables and scratch areas'),
    ...contextAndCache(facts),
  ];
}

/** The explanations of an engine, as its caller in another thread should see them. */
export const asHosted = (explanations: Explained): Explained =>
  explanations.map((explanation) =>
    explanation.key === 'engine.thread' ? explained('engine.thread', 'own', 'default') : explanation,
  );

/** How weights are stored: the policy, then each storage with the reasons for it. */
function storages({ description, options, quantize, files }: LoadFacts): Explained {
  const groups = new Map<string, { count: number; bytes: number; reasons: Map<string, number> }>();
  for (const { shape, shares, storage, bytes, reason } of description.plan.weights) {
    if (shape.length !== 2 || shares !== undefined) continue;
    const group = groups.get(storage) ?? { count: 0, bytes: 0, reasons: new Map<string, number>() };
    group.count++;
    group.bytes += bytes;
    group.reasons.set(reason, (group.reasons.get(reason) ?? 0) + 1);
    groups.set(storage, group);
  }
  const policyWhy = files.metadata
    ? 'of GGUF files: the types that their authors chose'
    : description.kind === 'encoder'
      ? 'of encoders: embeddings as exact as the file'
      : 'of decoders in SafeTensors';
  return [
    explained(
      'storage.policy',
      quantize,
      optionOr('quantize', options.quantize),
      options.quantize === undefined ? policyWhy : undefined,
    ),
    ...[...groups]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([storage, { count, bytes, reasons }]) => {
        const why = [...reasons].map(([reason, times]) => `${times} ${reason}`).join('; ');
        return explained(`storage.${storage}`, count, 'storage.policy', `matrices, ${bytes} bytes: ${why}`);
      }),
  ];
}

function contextAndCache({
  description,
  options,
  contextLength,
  contextFile,
  cache,
  backend,
  host,
}: LoadFacts): Explained {
  const { kind, config } = description;
  const { contextLength: asked, cacheTokens, cacheMemory, kvCache } = options;
  const limit = DEFAULT_CONTEXT[kind];
  const context =
    asked !== undefined
      ? explained('context.length', contextLength, 'option contextLength')
      : cacheTokens === contextLength
        ? explained('context.length', contextLength, 'option cacheTokens')
        : contextLength === config.contextLength
          ? explained('context.length', contextLength, 'model')
          : contextLength === limit
            ? explained('context.length', contextLength, 'default', `the model has ${config.contextLength}`)
            : explained('context.length', contextLength, contextFile ?? 'default');
  const rows = [
    explained('forward.rows', backend.maxRows, 'default', 'most rows of one forward'),
    explained('forward.wanted', backend.maxWanted, 'default', 'most rows of one forward with results'),
  ];
  if (kind === 'encoder') return [context, ...rows];
  const { capacity, pageBytes } = backend.cache;
  const from = cacheTokens !== undefined ? 'option cacheTokens' : optionOr('cacheMemory', cacheMemory);
  const storage = `one of ${kvStorages.join(', ')}`;
  return [
    context,
    ...rows,
    explained('cache.storage', kvCache ?? 'f32', optionOr('kvCache', kvCache), storage),
    explained(
      'cache.tokens',
      capacity * 64,
      from,
      `${capacity} pages of 64 positions, ${pageBytes} bytes each${from === 'default' ? `; ${cacheReason(cache, capacity, pageBytes, host)}` : ''}`,
    ),
  ];
}

/** The limit that made the default cache as large as it is. */
function cacheReason(
  { contextLength, mostTokens = contextLength, mostBytes = 0 }: CacheSize,
  capacity: number,
  pageBytes: number,
  host: WasmHost,
): string {
  if (capacity * 64 >= mostTokens) return 'a context for each text of a forward';
  if (capacity * 64 <= Math.ceil(contextLength / 64) * 64) return 'one context, the least there may be';
  if (capacity === Math.floor(mostBytes / pageBytes))
    return mostBytes >= host.memoryBytes / 4
      ? "a quarter of the machine's memory"
      : 'half of the unused memory that weights leave';
  return 'what the 32-bit memories of the weights have left';
}

export interface TokenFacts {
  readonly tokenizer: Tokenizer | undefined;
  readonly tokenizerError: LanewiseError | undefined;
  readonly tokenizerSource: TokenizerSource | undefined;
}

/** Where a tokenizer comes from, and which tokens it puts around a text. */
export function explainTokenizer({ tokenizer, tokenizerError, tokenizerSource }: TokenFacts): Explained {
  if (!tokenizer || !tokenizerSource)
    return [explained('tokenizer.kind', null, 'files', tokenizerError?.message ?? 'none: the model takes token ids')];
  const bos = tokenizer.role('bos');
  const around = tokenizer.encode('').map((id) => tokenizer.token(id) ?? `${id}`);
  return [
    explained('tokenizer.kind', tokenizer.kind, fileOf(tokenizerSource), `ids below ${tokenizer.vocabSize}`),
    bos
      ? explained('tokens.bos', bos.id, roleFrom(tokenizerSource, 'bos'), JSON.stringify(bos.text))
      : explained('tokens.bos', null, fileOf(tokenizerSource)),
    explained('tokens.around', around.join(' ') || null, fileOf(tokenizerSource), 'put around each text by default'),
  ];
}

/** Decisions about texts that a decoder generates. */
export function explainDecoder({
  ends,
  chat,
  tokenizer,
  draft,
  options,
}: {
  readonly ends: ReadonlyMap<number, string>;
  readonly chat: ChatFiles;
  readonly tokenizer: Tokenizer | undefined;
  readonly draft: string | undefined;
  readonly options: LoadOptions;
}): Explained {
  const { format, from = 'files' } = chat;
  const names = ends.size ? [...ends.values()] : ['files'];
  const template =
    format instanceof LanewiseError
      ? explained('template.source', null, 'files', format.message)
      : explained(
          'template.source',
          from,
          'files',
          format.named ? `templates: ${[...format.named.keys()].join(', ')}` : undefined,
        );
  const { maxQueue, stepBudgetMs } = options;
  return [
    explained(
      'tokens.ends',
      [...ends.keys()].join(', '),
      [...new Set(names)].join('; '),
      [...ends.keys()].map((id) => JSON.stringify(tokenizer?.token(id) ?? null)).join(', ') || 'no token ends a text',
    ),
    template,
    explained('draft.model', draft ?? null, draft === undefined ? 'default' : 'option draft'),
    explained('queue.most', maxQueue ?? 512, optionOr('maxQueue', maxQueue), 'requests that may wait'),
    explained('forward.budget', stepBudgetMs ?? 100, optionOr('stepBudgetMs', stepBudgetMs), 'milliseconds'),
  ];
}

/** Options that are explained although they were not given. */
const alwaysShown: readonly string[] = ['maxTokens', 'seed', 'speculate'];

/** Where the options of a generation come from: from the call, the model's files, or the library. */
export function explainOptions(options: GenerateOptions, defaults: SamplingDefaults): Explained {
  return optionNames.flatMap((name) => {
    const { programs = false, standard } = generateTable[name] as { programs?: boolean; standard?: string };
    const given: unknown = options[name] ?? undefined;
    const key = `options.${name}`;
    if (given !== undefined && !programs) return [explained(key, plain(given), `option ${name}`)];
    const known = Object.hasOwn(defaults, name) ? defaults[name as keyof SamplingDefaults] : undefined;
    if (known) return [explained(key, known.value, known.from)];
    if (!alwaysShown.includes(name)) return [];
    const value = name === 'seed' ? undefined : generateTable[name].otherwise();
    return [explained(key, plain(value ?? null), 'default', standard)];
  });
}

function plain(value: unknown): Explanation['value'] {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return value;
  return value instanceof Map || value instanceof Set ? `${value.size} items` : JSON.stringify(value);
}
