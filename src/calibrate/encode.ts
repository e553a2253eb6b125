/** Writes codes and scales as blocks in the order of GGUF. */

import type { PlainBlock } from '../kernels/calibration/feedback.ts';
import { toF16 } from '../quant/f16.ts';
import type { Codes } from './algebra.ts';
import { LANES } from './algebra.ts';

const BLOCK = 32;
const bytesOf: Readonly<Record<PlainBlock, number>> = { q4_0: 18, iq4_nl: 18, q8_0: 34 };

/** The blocks of all rows, row by row. */
export function encodeBlocks(type: PlainBlock, { rows, columns, codes, scales }: Codes): Uint8Array<ArrayBuffer> {
  const blocks = columns / BLOCK;
  const blockBytes = bytesOf[type];
  const out = new Uint8Array(rows * blocks * blockBytes);
  let at = 0;
  for (let row = 0; row < rows; row++) {
    const [group, lane] = [row >> 4, row & 15];
    for (let block = 0; block < blocks; block++) {
      const half = toF16(scales[(group * blocks + block) * LANES + lane]!);
      out[at] = half & 255;
      out[at + 1] = half >> 8;
      const first = (group * columns + block * BLOCK) * LANES + lane;
      if (type === 'q8_0') for (let i = 0; i < BLOCK; i++) out[at + 2 + i] = codes[first + i * LANES]! - 128;
      else
        for (let i = 0; i < BLOCK / 2; i++)
          out[at + 2 + i] = codes[first + i * LANES]! | (codes[first + (i + BLOCK / 2) * LANES]! << 4);
      at += blockBytes;
    }
  }
  return out;
}
