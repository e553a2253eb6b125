/** Chooses the files of a repository that make up its model. */
import { FormatError, HubError } from '../errors.ts';
import { firstPart, isModelGguf, partNames } from '../formats/gguf.ts';
import { INDEX, SINGLE, shardIndex } from '../formats/shard-index.ts';
import type { HubId } from './names.ts';

const companions = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'spiece.model',
  'sentencepiece.bpe.model',
  'spm.model',
  'tekken.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'vocab.txt',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'modules.json',
  'sentence_bert_config.json',
  'config_sentence_transformers.json',
];
/** Named chat templates, and modules of sentence-transformers (`1_Pooling`, `2_Dense`, `3_Normalize`). */
const companionFolders = [
  /^additional_chat_templates\/[^/]+\.jinja$/,
  /^\d+_[A-Za-z]+\/(?:config\.json|model\.safetensors)$/,
];
export const vocabularies = [
  'tokenizer.json',
  'tokenizer.model',
  'spiece.model',
  'sentencepiece.bpe.model',
  'spm.model',
  'vocab.txt',
  'vocab.json',
  'tekken.json',
];

/** Order of preference if no quantization is named: the most popular, then larger, then smaller ones. */
const preferred = [
  ...['Q4_K_M', 'Q8_0', 'Q4_K_S', 'Q4_K', 'Q5_K_M', 'Q5_K_S', 'Q5_K', 'Q6_K', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'MXFP4'],
  ...['F16', 'BF16', 'F32', 'Q3_K_L', 'Q3_K_M', 'Q3_K_S', 'Q2_K'],
];

export const isCompanion = (path: string): boolean =>
  companions.includes(path) || companionFolders.some((folder) => folder.test(path));

/** The models among GGUF files: first parts of split models, without image projectors and importance matrices. */
export const ggufModels = (paths: readonly string[]): string[] => [
  ...new Set(paths.filter((path) => isModelGguf(path)).map(firstPart)),
];

/**
 * The quantization in a file's name, in capitals: `Q4_K_M` of `model.Q4_K_M.gguf`, `model-q4_k_m-00001-of-00002.gguf` and
 * `Q4_K_M/model.gguf`; undefined if there is none.
 */
export function quantizationOf(path: string): string | undefined {
  const stem = path.replace(/(?:-\d{5}-of-\d{5})?\.gguf$/i, '');
  const label =
    /(?:^|[-._/])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|BF16|F(?:P)?16|F(?:P)?32|MXFP4(?:_MOE)?))(?=$|[-./])/gi;
  const found = [...stem.matchAll(label)].at(-1)?.[1];
  return found && canonical(found);
}

const canonical = (label: string): string => label.toUpperCase().replace(/^FP(16|32)$/, 'F$1');

/**
 * The GGUF models that a tag matches; without a tag those of the most preferred quantization.
 * @param models paths @returns several if the choice is ambiguous
 */
export function chooseGguf(models: readonly string[], tag: string | undefined): string[] {
  const wanted = tag === undefined || /^latest$/i.test(tag) ? undefined : canonical(tag.replace(/\.gguf$/i, ''));
  if (wanted !== undefined) {
    const exact = models.filter((path) => quantizationOf(path) === wanted);
    if (exact.length > 0) return exact;
    const inFolder = models.filter((path) => path.toUpperCase().startsWith(`${tag!.toUpperCase()}/`));
    if (inFolder.length > 0) return inFolder.length === 1 ? inFolder : chooseGguf(inFolder, undefined);
    const upper = models.map((path) => path.toUpperCase());
    return models.filter((_, i) => new RegExp(`(?:^|[-._/])${escaped(wanted)}(?:[-._/]|$)`).test(upper[i]!));
  }
  if (models.length < 2) return [...models];
  for (const label of preferred) {
    const found = models.filter((path) => quantizationOf(path) === label);
    if (found.length > 0) return found;
  }
  return [...models];
}

const escaped = (text: string): string => text.replace(/[.+*?^${}()|[\]\\]/g, '\\$&');

export interface ChosenFiles {
  /** Path of the model's file, or '' for a model in a folder. */
  readonly file: string;
  readonly files: readonly string[];
  /** The GGUF models that could have been chosen too; empty if one was named. */
  readonly others: readonly string[];
}

/** Chooses the files that the model needs among all files of a repository. @throws HubError */
export async function chooseFiles(
  id: HubId,
  paths: readonly string[],
  read: (path: string) => Promise<string>,
): Promise<ChosenFiles> {
  const { repository, tag } = id;
  // A link to config.json or README.md stands for the model in the same repository.
  const file = id.file !== undefined && /\.(gguf|safetensors)$/i.test(id.file) ? id.file : undefined;
  const has = (path: string): boolean => paths.includes(path);
  const take = (name: string, files: readonly string[], others: readonly string[] = []): ChosenFiles => {
    const missing = files.find((path) => !has(path));
    if (missing !== undefined)
      throw new HubError('EntryNotFound', `${repository}: expected the file ${missing}, found ${examples(paths)}`);
    return { file: name, files, others };
  };
  const beside = paths.filter(isCompanion);
  if (file?.toLowerCase().endsWith('.gguf')) return take(file, partNames(file));
  if (file !== undefined) return take(file, [...new Set([file, ...beside])]);
  const models = ggufModels(paths);
  if (tag !== undefined) {
    const inside = paths.filter((path) => path.startsWith(`${tag}/`)).map((path) => path.slice(tag.length + 1));
    if (inside.some((path) => /^[^/]+\.safetensors$/.test(path))) {
      const chosen = await chooseFiles({ repository, file: undefined }, inside, (path) => read(`${tag}/${path}`));
      const within = (path: string): string => `${tag}/${path}`;
      return { file: within(chosen.file), files: chosen.files.map(within), others: [] };
    }
  } else {
    if (has(SINGLE)) return take('', [SINGLE, ...beside]);
    if (has(INDEX)) return take('', [INDEX, ...beside, ...shardsOf(await read(INDEX), repository)]);
    const [weights, ...more] = paths.filter((path) => path.endsWith('.safetensors') && !path.includes('/'));
    if (weights && more.length === 0) return take('', [weights, ...beside]);
  }
  const [model, ...more] = chooseGguf(models, tag);
  if (model !== undefined && more.length === 0)
    return take(model, partNames(model), tag === undefined && models.length > 1 ? models : []);
  if (models.length > 0) {
    const choices = choicesOf(repository, model === undefined ? models : [model, ...more]);
    const what =
      model === undefined
        ? `expected a GGUF file for ${JSON.stringify(tag)}, found ${choices}`
        : `has ${more.length + 1} models; name one: ${choices}`;
    throw new HubError(model === undefined ? 'EntryNotFound' : 'AmbiguousModel', `${repository}: ${what}`);
  }
  throw new HubError(
    'NoWeights',
    `${repository}: expected ${SINGLE}, ${INDEX} or a .gguf file, found ${examples(paths)}`,
  );
}

/** Ids of models for messages: by quantization if these differ, else by file. */
function choicesOf(repository: string, models: readonly string[]): string {
  const labels = models.map(quantizationOf);
  return models
    .slice(0, 12)
    .map((model, i) => {
      const label = labels[i];
      const alone = label !== undefined && labels.filter((other) => other === label).length === 1;
      return `${repository}:${alone ? label : model}`;
    })
    .join(', ');
}

const examples = (paths: readonly string[]): string => paths.slice(0, 12).join(', ') || 'no files';

export function shardsOf(index: string, name: string): readonly string[] {
  try {
    const { shards } = shardIndex(JSON.parse(index), name);
    if (shards.length > 0) return shards;
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof SyntaxError)) throw error;
  }
  throw new HubError(
    'InvalidIndex',
    `${name}: expected {"weight_map": {tensor: file}} in ${INDEX}, found something else`,
  );
}
