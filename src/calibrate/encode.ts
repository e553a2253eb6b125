/** Writes codes and scales as blocks in the order of GGUF. */
import { toF16 } from '../quant/f16.ts';
import { weightTypes } from '../quant/ggml.ts';
import { writeScales } from '../quant/k-scales.ts';
import { packQ4_K, packQ5_K } from '../quant/q4_k.ts';
import { packQ6_K } from '../quant/q6_k.ts';
import { type Codes, type FeedbackType, LANES } from './algebra.ts';

const BLOCK = 32;
const SUPER = 256;

/** The blocks of all rows, row by row. */
export function encodeBlocks(type: FeedbackType, codes: Codes): Uint8Array<ArrayBuffer> {
  const { rows, columns } = codes;
  const { block, bytes: blockBytes } = weightTypes[type];
  const blocks = columns / block;
  const out = new Uint8Array(rows * blocks * blockBytes);
  const view = new DataView(out.buffer);
  const encode = block === BLOCK ? encodePlain : encodeSuper;
  for (let row = 0, at = 0; row < rows; row++)
    for (let index = 0; index < blocks; index++, at += blockBytes) encode(type, codes, row, index, out, view, at);
  return out;
}

function encodePlain(
  type: FeedbackType,
  { columns, codes, scales }: Codes,
  row: number,
  block: number,
  out: Uint8Array,
  view: DataView,
  at: number,
): void {
  const [group, lane] = [row >> 4, row & 15];
  view.setUint16(at, toF16(scales[(group * (columns / BLOCK) + block) * LANES + lane]!), true);
  const first = (group * columns + block * BLOCK) * LANES + lane;
  if (type === 'q8_0') {
    for (let i = 0; i < BLOCK; i++) out[at + 2 + i] = codes[first + i * LANES]! - 128;
    return;
  }
  for (let i = 0; i < BLOCK / 2; i++)
    out[at + 2 + i] = codes[first + i * LANES]! | (codes[first + (i + BLOCK / 2) * LANES]! << 4);
}

/** Codes of one super-block, reused between calls. */
const superCodes = new Uint8Array(SUPER);

function encodeSuper(
  type: FeedbackType,
  { columns, codes, scales, supers }: Codes,
  row: number,
  index: number,
  _: Uint8Array,
  view: DataView,
  at: number,
): void {
  const [group, lane] = [row >> 4, row & 15];
  const first = (group * columns + index * SUPER) * LANES + lane;
  for (let i = 0; i < SUPER; i++) superCodes[i] = codes[first + i * LANES]!;
  const pair = (group * (columns / SUPER) + index) * 2 * LANES + lane;
  const [d, dmin] = [toF16(supers[pair]!), toF16(supers[pair + LANES]!)];
  const count = type === 'q6_k' ? 16 : 8;
  const integers = (n: number, which: 0 | 1): number =>
    scales[((group * (columns / SUPER) + index) * count + n) * 2 * LANES + which * LANES + lane]!;
  if (type === 'q6_k') {
    packQ6_K({ d, scales: Array.from({ length: count }, (_, n) => integers(n, 0)), codes: superCodes }, view, at);
    return;
  }
  view.setUint16(at, d, true);
  view.setUint16(at + 2, dmin, true);
  writeScales(
    view,
    at + 4,
    Array.from({ length: count }, (_, n) => ({ s: integers(n, 0), m: integers(n, 1) })),
  );
  (type === 'q4_k' ? packQ4_K : packQ5_K)(superCodes, view, at);
}
