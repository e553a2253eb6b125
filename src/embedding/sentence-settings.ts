/** Settings of sentence-transformers around the model: how long texts may be, and what stands in front of them. */
import { ModelError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { readJson } from '../formats/json.ts';
import { isObject, type ModuleSettings, shown, unsupported } from './module-settings.ts';

export interface SentenceSettings {
  /** The file that says how texts are cut; undefined: nothing does. */
  readonly lengthFile: string | undefined;
  /** Most tokens of a text, special tokens included. */
  readonly maxTokens: number | undefined;
  /** Texts become lower case before they are tokenized. */
  readonly lowerCase: boolean;
  /** Texts to put in front, by name. */
  readonly prompts: ReadonlyMap<string, string>;
  readonly defaultPrompt: string | undefined;
  /** How vectors are compared: cosine, dot, euclidean, manhattan. */
  readonly similarity: string | undefined;
  /** Why the hidden states are not what is embedded. */
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

/** Names of the Transformer module's file, in the order in which sentence-transformers looks for them. */
const lengthFiles = ['bert', 'roberta', 'distilbert', 'camembert', 'albert', 'xlm-roberta', 'xlnet'].map(
  (kind) => `sentence_${kind}_config.json`,
);
const PROMPTS = 'config_sentence_transformers.json';
/** `model_max_length` of tokenizers without a limit is 10^30. */
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

/** Newer versions may take other outputs of a model than its hidden states. */
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
  // Whatever is no length is a sign that there is no limit.
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
    // Null stands for no text.
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
