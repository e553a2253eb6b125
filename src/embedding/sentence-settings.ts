/** Reads the settings of sentence-transformers for texts: maximum length, lower-casing and prompts. */
import { ModelError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { isObject, readJson } from '../formats/json.ts';
import { type ModuleSettings, shown, unsupported } from './module-settings.ts';

export interface SentenceSettings {
  /** File that `maxTokens` was read from, if any. */
  readonly lengthFile: string | undefined;
  /** Most tokens of a text, special tokens included. */
  readonly maxTokens: number | undefined;
  /** Whether texts are lower-cased before they are tokenized. */
  readonly lowerCase: boolean;
  /** Prompts by name; a prompt is put in front of a text. */
  readonly prompts: ReadonlyMap<string, string>;
  readonly defaultPrompt: string | undefined;
  /** How vectors are compared: cosine, dot, euclidean, manhattan. */
  readonly similarity: string | undefined;
  /** Set if the model is meant to embed something else than its hidden states. */
  readonly problem: ModelError | undefined;
}

export const noSettings: SentenceSettings = {
  lengthFile: undefined,
  maxTokens: undefined,
  lowerCase: false,
  prompts: new Map(),
  defaultPrompt: undefined,
  similarity: undefined,
  problem: undefined,
};

/** File names of the Transformer module's settings, in the order in which sentence-transformers looks for them. */
const lengthFiles = ['bert', 'roberta', 'distilbert', 'camembert', 'albert', 'xlm-roberta', 'xlnet'].map(
  (kind) => `sentence_${kind}_config.json`,
);
const PROMPTS = 'config_sentence_transformers.json';
/** Larger lengths mean no limit: `model_max_length` is then 10^30. */
const NO_LIMIT = 2 ** 31;

/** @throws ModelError, FormatError */
export async function readSentenceSettings(folder: FileFolder): Promise<SentenceSettings> {
  return { ...noSettings, ...(await readTransformer(folder)), ...(await readPrompts(folder)) };
}

async function readTransformer(folder: FileFolder): Promise<Partial<SentenceSettings>> {
  for (const lengthFile of lengthFiles) {
    const json = await readJson(folder, lengthFile);
    if (json === undefined) continue;
    const file = `${folder.name}/${lengthFile}`;
    const config = objectOf(json, file);
    const lowerCase = config.do_lower_case ?? false;
    if (typeof lowerCase !== 'boolean')
      throw invalid(file, `expected true or false as do_lower_case, found ${shown(lowerCase)}`);
    const maxTokens = lengthOf(config.max_seq_length, file, 'max_seq_length') ?? (await tokenizerLength(folder));
    return { lengthFile, maxTokens, lowerCase, problem: outputProblem(config, file) };
  }
  return {};
}

/** Newer versions can embed other outputs of a model than its hidden states. */
function outputProblem(config: ModuleSettings, file: string): ModelError | undefined {
  const { transformer_task: task, modality_config: modalities, module_output_name: output } = config;
  if (task !== undefined && task !== 'feature-extraction')
    return unsupported(file, `expected feature-extraction as transformer_task, found ${shown(task)}`);
  if (output !== undefined && output !== 'token_embeddings')
    return unsupported(file, `expected token_embeddings as module_output_name, found ${shown(output)}`);
  if (modalities === undefined) return undefined;
  const { text } = fieldsOf(modalities);
  const { method = 'forward', method_output_name: name = 'last_hidden_state' } = fieldsOf(text);
  if (text !== undefined && method === 'forward' && name === 'last_hidden_state') return undefined;
  return unsupported(file, `expected last_hidden_state of forward for text in modality_config, found ${shown(text)}`);
}

async function tokenizerLength(folder: FileFolder): Promise<number | undefined> {
  const json = await readJson(folder, 'tokenizer_config.json');
  const length = fieldsOf(json).model_max_length;
  // Any other value means that there is no limit.
  return Number.isInteger(length) && (length as number) > 0 && (length as number) < NO_LIMIT
    ? (length as number)
    : undefined;
}

async function readPrompts(folder: FileFolder): Promise<Partial<SentenceSettings>> {
  const json = await readJson(folder, PROMPTS);
  if (json === undefined) return {};
  const file = `${folder.name}/${PROMPTS}`;
  const config = objectOf(json, file);
  const prompts = new Map<string, string>();
  for (const [name, text] of Object.entries(objectOf(config.prompts ?? {}, file, 'prompts'))) {
    // null stands for an empty prompt.
    if (typeof (text ?? '') !== 'string') throw invalid(file, `expected texts in prompts, found ${shown(text)}`);
    prompts.set(name, (text as string | null) ?? '');
  }
  const chosen = config.default_prompt_name ?? undefined;
  if (chosen !== undefined && !(typeof chosen === 'string' && prompts.has(chosen))) {
    const names = [...prompts.keys()].join(', ') || 'none';
    throw invalid(file, `expected one of the prompts (${names}) as default_prompt_name, found ${shown(chosen)}`);
  }
  const similarity = config.similarity_fn_name ?? undefined;
  return { prompts, defaultPrompt: chosen, similarity: typeof similarity === 'string' ? similarity : undefined };
}

function lengthOf(value: unknown, file: string, key: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (Number.isInteger(value) && (value as number) > 0) return value as number;
  throw invalid(file, `expected a positive integer as ${key}, found ${shown(value)}`);
}

function objectOf(json: unknown, file: string, key?: string): Record<string, unknown> {
  if (isObject(json)) return json;
  throw invalid(file, `expected an object${key ? ` as ${key}` : ''}, found ${shown(json)}`);
}

const invalid = (file: string, what: string): ModelError => new ModelError('InvalidConfig', `${file}: ${what}`);
const fieldsOf = (value: unknown): ModuleSettings => (isObject(value) ? value : {});
