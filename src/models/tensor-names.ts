/**
 * Renames a file's tensors to the names of its architecture. Files have different prefixes (none, `model.`,
 * `language_model.model.`, `model.language_model.` ...); the name of the token embedding shows which.
 */
import type { TensorShape } from './weights.ts';

/** Names of an architecture's tensors, without `.weight`. */
export interface TensorRoot {
  /** Prefix of all names except the output head's. */
  readonly root: string;
  /** Name of the token embedding, after the root. */
  readonly embedding: string;
  readonly head: string;
}

export const usualRoot: TensorRoot = { root: 'model', embedding: 'embed_tokens', head: 'lm_head' };

/** Prefix given to tensors outside the root. */
export const OUTSIDE = '/';

/** Most prefixes tried: a file may have any number of embeddings. */
const MOST_PREFIXES = 16;

export interface NamedTensors {
  /** Tensors by the architecture's names. */
  readonly tensors: ReadonlyMap<string, TensorShape>;
  /** The file's name of a tensor. */
  nameOf(tensor: string): string;
  /** The file's names of the embedding and of the output head, if it has both. */
  readonly ends?: { readonly embedding: string; readonly head: string };
  /** Whether the file has an output head; undefined if the embedding was not found. */
  readonly hasHead?: boolean;
}

export const unchangedNames = (tensors: ReadonlyMap<string, TensorShape>): NamedTensors => ({
  tensors,
  nameOf: (tensor) => tensor,
});

/**
 * @param shape shape of the embedding: a tensor of that name with another shape is used only if there is no better one
 */
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

/** The prefix of the embedding; of several candidates the one with the most layers below it. */
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

/** The prefix and all shorter ones: `a.b.`, `a.`, ``. */
function prefixesAbove(prefix: string): string[] {
  const parts = prefix.split('.').slice(0, -1);
  return [...parts.keys(), parts.length].reverse().map((count) =>
    parts
      .slice(0, count)
      .map((part) => `${part}.`)
      .join(''),
  );
}
