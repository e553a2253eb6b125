/** Tensors that the text part does not use: image towers, projectors, layers that predict further tokens. */
import type { Config } from './config.ts';
import { OUTSIDE } from './tensor-names.ts';
import type { TextPart } from './text-part.ts';

/** Most groups named in a notice. */
const MOST_GROUPS = 4;

/**
 * A predicate for tensors that may be left unused. If the model has further parts, these are the tensors that share no
 * group (`model.GROUP.`) with a used tensor: an unknown tensor within the used layers means another architecture.
 */
export function spareTensors(
  { wrapper }: TextPart,
  json: Config,
  layers: number,
): (tensor: string, used: ReadonlySet<string>) => boolean {
  const predicting = ['num_nextn_predict_layers', 'mtp_num_hidden_layers', 'num_mtp_layers'].reduce(
    (most, key) => Math.max(most, json.has(key) ? json.count(key) : 0),
    0,
  );
  let groups: Set<string> | undefined;
  return (tensor, used) => {
    if (/(^|[./])(mtp|mtp_block|nextn)\./.test(tensor)) return true;
    const layer = Number(/^[^/]*?\.(?:layers|h|blocks)\.(\d+)\./.exec(tensor)?.[1] ?? -1);
    if (layer >= layers && layer < layers + predicting) return true;
    if (wrapper === undefined) return false;
    groups ??= new Set([...used].map(groupOf));
    return tensor.startsWith(OUTSIDE) || !groups.has(groupOf(tensor));
  };
}

/** `layers` of `model.layers.0.mlp.up_proj.weight`. */
const groupOf = (tensor: string): string => tensor.split('.')[1] ?? '';

/** A notice about the unused tensors, if there are any. */
export function leftAside({ place, wrapper, modelType }: TextPart, spared: readonly string[]): string[] {
  if (spared.length === 0) return [];
  const counts = new Map<string, number>();
  for (const name of spared) {
    const parts = name.split('.');
    const group = parts[0] === 'model' && parts.length > 1 ? `model.${parts[1]}` : parts[0]!;
    counts.set(group.slice(0, 80), (counts.get(group.slice(0, 80)) ?? 0) + 1);
  }
  const groups = [...counts].map(([group, count]) => `${group} (${count})`);
  const more = groups.length > MOST_GROUPS ? ` and ${groups.length - MOST_GROUPS} more` : '';
  const tensors = spared.length === 1 ? '1 tensor is' : `${spared.length} tensors are`;
  const what = wrapper === undefined ? 'not needed for text' : `the text part, ${modelType}, is loaded`;
  return [`${place}: ${what}; ${tensors} left aside: ${groups.slice(0, MOST_GROUPS).join(', ')}${more}`];
}
