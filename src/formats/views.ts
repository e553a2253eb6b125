/** Tensors as a model wants them, out of a file that keeps them otherwise: some rows, rows in another order. */
import { FormatError } from '../errors.ts';
import type { CheckpointTensor } from './checkpoint.ts';

/**
 * The file's rows in the order that is wanted. Rows are moved in runs of neighbours: wanted run i of a group is the file's
 * run order[i] of the same group; a group has `order.length` runs, and groups follow each other.
 */
export interface RowOrder {
  readonly run: number;
  readonly order: readonly number[];
}

/** A part of the tensor `source` of a file, seen as a tensor of its own. */
export interface TensorView {
  readonly source: string;
  readonly shape: readonly number[];
  /** Rows of the file's tensor before the first one: an expert's place among all. */
  readonly firstRow: number;
  readonly rows?: RowOrder;
}

/** Bytes that are read at once where single rows change their places. */
const GATHER_BYTES = 2 ** 20;

/** The tensor that a view shows. Its `readInto` reads rows where they are; at most some megabytes are in memory. */
export function viewTensor(
  name: string,
  tensor: CheckpointTensor,
  { shape, firstRow, rows }: TensorView,
): CheckpointTensor {
  const fileRows = rowsOf(tensor.shape);
  const rowBytes = fileRows === 0 ? 0 : tensor.byteLength / fileRows;
  const share = countOf(shape) / countOf(tensor.shape);
  const byteLength = Number.isNaN(share) ? 0 : tensor.byteLength * share;
  const base = firstRow * rowBytes;
  return {
    ...tensor,
    name,
    shape,
    byteLength,
    offset: tensor.offset + base,
    descriptor: rows === undefined ? tensor.descriptor : undefined,
    async readInto(start, target) {
      if (!Number.isSafeInteger(start) || start < 0 || start + target.length > byteLength) {
        const what = `bytes ${start} to ${start + target.length} asked for, the tensor has ${byteLength}`;
        throw new FormatError('OutOfTensor', tensor.file, what, { key: name });
      }
      if (rows === undefined) return tensor.readInto(base + start, target);
      if (rows.run === 1) return gather(tensor, base, rowBytes, rows.order, start, target);
      return readRuns(tensor, base, rowBytes, rows, start, target);
    },
  };
}

const countOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** The values of a vector are rows too: a bias has one for each row of its matrix. */
const rowsOf = (shape: readonly number[]): number => countOf(shape.length > 1 ? shape.slice(0, -1) : shape);

/** Reads each run of rows from its place. */
async function readRuns(
  tensor: CheckpointTensor,
  base: number,
  rowBytes: number,
  { run, order }: RowOrder,
  start: number,
  target: Uint8Array,
): Promise<void> {
  const runBytes = run * rowBytes;
  const groupBytes = order.length * runBytes;
  for (let done = 0; done < target.length; ) {
    const at = start + done;
    const group = Math.floor(at / groupBytes);
    const index = Math.floor((at % groupBytes) / runBytes);
    const within = at % runBytes;
    const length = Math.min(runBytes - within, target.length - done);
    const from = base + group * groupBytes + order[index]! * runBytes + within;
    await tensor.readInto(from, target.subarray(done, done + length));
    done += length;
  }
}

/** Reads whole groups of rows and copies each row to its place. */
async function gather(
  tensor: CheckpointTensor,
  base: number,
  rowBytes: number,
  order: readonly number[],
  start: number,
  target: Uint8Array,
): Promise<void> {
  const groupBytes = order.length * rowBytes;
  const end = start + target.length;
  const step = Math.max(1, Math.floor(GATHER_BYTES / groupBytes)) * groupBytes;
  const firstByte = Math.floor(start / groupBytes) * groupBytes;
  const lastByte = Math.ceil(end / groupBytes) * groupBytes;
  const buffer = new Uint8Array(Math.min(step, lastByte - firstByte));
  for (let from = firstByte; from < lastByte; from += step) {
    const piece = buffer.subarray(0, Math.min(step, lastByte - from));
    await tensor.readInto(base + from, piece);
    for (let row = 0; row * rowBytes < piece.length; row++) {
      const group = Math.floor(row / order.length) * order.length;
      const source = (group + order[row % order.length]!) * rowBytes;
      const at = from + row * rowBytes;
      const [first, last] = [Math.max(at, start), Math.min(at + rowBytes, end)];
      if (first < last) target.set(piece.subarray(source + first - at, source + last - at), first - start);
    }
  }
}
