/** The table of `lanewise plan`: how each layer is stored, and why. */

import { formatBytes } from '../profile/units.ts';
import { renderTable } from './table.ts';

/** One linear layer. */
export interface StoredLayer {
  /** `layers.3.attention.q`, `output` */
  readonly name: string;
  readonly role: string;
  readonly in: number;
  readonly out: number;
  /** `q8_0`, `f32`, ... */
  readonly stored: string;
  readonly quantized: boolean;
  readonly reason: string;
  /** 0 if the layer shares another weight's storage. */
  readonly bytes: number;
}

/** Layers that differ only in number and member name. */
export interface LayerGroup {
  /** `attention q/k/v/o`, `ffn up`, `output` */
  readonly type: string;
  readonly layers: readonly StoredLayer[];
  /** The fields that are equal for all. */
  readonly first: StoredLayer;
}

export function groupLayers(layers: readonly StoredLayer[]): LayerGroup[] {
  const groups = new Map<string, StoredLayer[]>();
  for (const layer of layers) {
    const key = JSON.stringify([layer.role, layer.in, layer.out, layer.stored, layer.reason]);
    const group = groups.get(key);
    if (group) group.push(layer);
    else groups.set(key, [layer]);
  }
  return [...groups.values()].map((group) => ({ type: typeOf(group), layers: group, first: group[0]! }));
}

/** Each group has a row. The last row counts the quantized layers. */
export function renderStorageTable(layers: readonly StoredLayer[]): string {
  const quantized = layers.filter((layer) => layer.quantized).length;
  return renderTable(
    [
      { title: 'Layer type' },
      { title: 'Count', align: 'right' },
      { title: 'Dimensions', align: 'right' },
      { title: 'Stored as' },
      { title: 'Bytes', align: 'right' },
      { title: 'Reason' },
    ],
    [
      ...groupLayers(layers).map(({ type, layers: group, first }) => {
        const { in: width, out, stored, reason } = first;
        return [type, `${group.length}`, `${width} → ${out}`, stored, bytesOf(group), reason];
      }),
      ['Total quantized', `${quantized} of ${layers.length}`, '', '', bytesOf(layers), ''],
    ],
  );
}

/** `attention q/k/v/o`, `ffn up`, `output` */
function typeOf(group: readonly StoredLayer[]): string {
  const members = group.map(({ name, role }) => {
    const last = name.slice(name.lastIndexOf('.') + 1);
    return last === role ? '' : last;
  });
  return [group[0]!.role, [...new Set(members)].join('/')].join(' ').trim();
}

export function bytesOf(layers: readonly StoredLayer[]): string {
  const bytes = layers.reduce((sum, layer) => sum + layer.bytes, 0);
  return bytes === 0 ? 'shared' : formatBytes(bytes);
}
