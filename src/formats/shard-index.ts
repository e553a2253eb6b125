/** The index of weights in several SafeTensors files. */
import { FormatError } from '../errors.ts';
import { isPlainFileName } from './bytes.ts';
import { isObject } from './json.ts';

/** Names of weights in one file, and of the index of weights in several. */
export const SINGLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';

export interface ShardIndex {
  /** Tensor name -> file name. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** File names, sorted. */
  readonly shards: readonly string[];
  readonly totalSize: unknown;
}

/** @param file for messages @throws FormatError InvalidIndex, UnsafeFileName */
export function shardIndex(json: unknown, file: string): ShardIndex {
  const map = isObject(json) ? json.weight_map : undefined;
  if (!isObject(json) || !isObject(map)) {
    throw new FormatError('InvalidIndex', file, 'expected {"weight_map": {tensor: file}}', { key: 'weight_map' });
  }
  const weightMap = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== 'string') throw new FormatError('InvalidIndex', file, 'expected a file name', { key: tensor });
    if (!isPlainFileName(shard) || !shard.endsWith('.safetensors')) {
      const found = JSON.stringify(shard.slice(0, 200));
      const what = `expected the name of a .safetensors file beside the index, without path parts, found ${found}`;
      throw new FormatError('UnsafeFileName', file, what, { key: tensor });
    }
    weightMap.set(tensor, shard);
  }
  const totalSize = isObject(json.metadata) ? json.metadata.total_size : undefined;
  return { weightMap, shards: [...new Set(weightMap.values())].sort(), totalSize };
}
