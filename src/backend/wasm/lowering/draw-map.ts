/** Where the passes of a draw (src/kernels/draw.ts) find and leave what they need. */
import { BIN_BYTES, CHUNK_SUM_BYTES, EDGE_BYTES } from '../../../kernels/draw.ts';
import { RECORD_BYTES } from '../../../kernels/record.ts';
import { rowBytes } from '../../../plan/memory.ts';
import { SUMMARY_CHUNK } from '../../../plan/step.ts';

export interface DrawMap {
  /** A bit for each logit of a row, whole lines of 16. */
  readonly mask: number;
  readonly maskBytes: number;
  /** An f32 for each chunk. */
  readonly maxima: number;
  /** CHUNK_SUM_BYTES for each chunk. */
  readonly sums: number;
  /** An i32 for each logit. */
  readonly weights: number;
  /** BIN_BYTES for each thread. */
  readonly bins: number;
  /** EDGE_BYTES for each thread. */
  readonly edge: number;
  /** One record. */
  readonly tape: number;
}

/** @param width logits of a row */
export function mapDraw(take: (what: string, bytes: number) => number, width: number, threads: number): DrawMap {
  const chunks = Math.ceil(width / SUMMARY_CHUNK);
  const maskBytes = Math.ceil(width / 32) * 4;
  return {
    mask: take('the mask of a draw', maskBytes),
    maskBytes,
    maxima: take('the largest logits', chunks * 4),
    sums: take('sums of weights', chunks * CHUNK_SUM_BYTES),
    weights: take('weights of tokens', rowBytes(width)),
    bins: take('bins of logits', threads * BIN_BYTES),
    edge: take('candidates of a draw', threads * EDGE_BYTES),
    tape: take('the tape of a draw', RECORD_BYTES),
  };
}
