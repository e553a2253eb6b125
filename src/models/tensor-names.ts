/**
 * The names of a file's tensors as an architecture asks for them. Files differ in what stands in front: nothing, `model.`,
 * `language_model.model.`, `model.language_model.` and so on; the token embedding tells.
 */
import type { TensorShape } from './weights.ts';

/** How an architecture calls its tensors, without `.weight`. */
export interface TensorRoot {
  /** In front of all names but the output head's. */
  readonly root: string;
  /** Behind the root. */
  readonly embedding: string;
  readonly head: string;
}

export const usualRoot: TensorRoot = { root: 'model', embedding: 'embed_tokens', head: 'lm_head' };

/** In front of tensors that are not below the root. */
export const OUTSIDE = '/';

/** A file may claim any number of embeddings. */
const MOST_PREFIXES = 16;

export interface NamedTensors {
  /** By the architecture's names; `file` has those that the file calls otherwise. */
  readonly tensors: ReadonlyMap<string, TensorShape>;
  /** The file's name of a tensor. */
  nameOf(tensor: string): string;
  /** The file's names of the embedding and of the output head, where it has both. */
  readonly ends?: { readonly embedding: string; readonly head: string };
  /** Whether the file has an output head; undefined where not even the embedding was found. */
  readonly hasHead?: boolean;
}

export const unchangedNames = (tensors: ReadonlyMap<string, TensorShape>): NamedTensors => ({
  tensors,
  nameOf: (tensor) => tensor,
});

/** @param shape of the embedding: another tensor of that name is taken only where none has it */
export function nameTensors(
  tensors: ReadonlyMap<string, TensorShape>,
  { root, embedding, head }: TensorRoot,
  shape: readonly [rows: number, columns: number],
): NamedTensors {
  const prefix = findPrefix(tensors, `${embedding}.weight`, shape);
  if (prefix === undefined) return unchangedNames(tensors);
  const headPrefix = prefixesAbove(prefix).find((above) => tensors.has(`${above}${head}.weight`));
  const named = new Map<string, TensorShape>();
  const fileNames = new Map<string, string>();
  const add = (name: string, file: string, tensor: TensorShape): void => {
    named.set(name, tensor);
    fileNames.set(name, file);
  };
  for (const [file, tensor] of tensors) {
    const ofHead = headPrefix !== undefined && file.startsWith(`${headPrefix}${head}.`);
    if (ofHead) add(file.slice(headPrefix.length), file, tensor);
    else if (file.startsWith(prefix)) add(`${root}.${file.slice(prefix.length)}`, file, tensor);
    else add(`${OUTSIDE}${file}`, file, tensor);
  }
  const nameOf = (tensor: string): string =>
    fileNames.get(tensor) ?? (tensor.startsWith(`${root}.`) ? `${prefix}${tensor.slice(root.length + 1)}` : tensor);
  const ends =
    headPrefix === undefined
      ? undefined
      : { embedding: `${prefix}${embedding}.weight`, head: `${headPrefix}${head}.weight` };
  return { tensors: named, nameOf, ends, hasHead: ends !== undefined };
}

/** What stands in front of the embedding; of several, the one with most layers behind it. */
function findPrefix(
  tensors: ReadonlyMap<string, TensorShape>,
  embedding: string,
  shape: readonly number[],
): string | undefined {
  const found = [...tensors]
    .filter(([name]) => name === embedding || name.endsWith(`.${embedding}`))
    .map(([name, tensor]) => ({
      prefix: name.slice(0, -embedding.length),
      fits: tensor.shape.length === 2 && tensor.shape.every((size, i) => size === shape[i]),
    }));
  const fitting = found.filter(({ fits }) => fits);
  const candidates = (fitting.length ? fitting : found).slice(0, MOST_PREFIXES).map(({ prefix }) => prefix);
  if (candidates.length < 2) return candidates[0];
  const layers = (prefix: string): number => {
    let count = 0;
    for (const name of tensors.keys())
      if (name.startsWith(prefix) && /^\w+\.\d+\./.test(name.slice(prefix.length))) count++;
    return count;
  };
  return candidates.map((prefix) => ({ prefix, count: layers(prefix) })).reduce((a, b) => (b.count > a.count ? b : a))
    .prefix;
}

/** `a.b.`, `a.`, and nothing. */
function prefixesAbove(prefix: string): string[] {
  const parts = prefix.split('.').slice(0, -1);
  return [...parts.keys(), parts.length].reverse().map((count) =>
    parts
      .slice(0, count)
      .map((part) => `${part}.`)
      .join(''),
  );
}
