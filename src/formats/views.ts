/** Views of a file's tensors: a range of rows, or rows in another order. */
import { type CheckpointTensor, checkRange } from './checkpoint.ts';

/**
 * A permutation of rows. A run is `run` consecutive rows, a group is `order.length` consecutive runs, and the tensor is a
 * sequence of groups. Run i of a group of the view is run order[i] of the same group in the file.
 */
export interface RowOrder {
  readonly run: number;
  readonly order: readonly number[];
}

/** Rows of the file's tensor `source`, seen as a tensor of its own. */
export interface TensorView {
  readonly source: string;
  readonly shape: readonly number[];
  /** Index of the view's first row in the file's tensor, such as the first row of an expert. */
  readonly firstRow: number;
  readonly rows?: RowOrder;
}

/** Bytes per read when single rows are permuted. */
const GATHER_BYTES = 2 ** 20;

/** The tensor that a view shows. Its `readInto` reads from the file piece by piece, a few megabytes at a time. */
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
      checkRange({ name, byteLength }, tensor.file, start, target.length);
      if (rows === undefined) return tensor.readInto(base + start, target);
      if (rows.run === 1) return gather(tensor, base, rowBytes, rows.order, start, target);
      return readRuns(tensor, base, rowBytes, rows, start, target);
    },
  };
}

/** The row of the file's tensor that is row `row` of a view. */
export function fileRow({ firstRow, rows }: Pick<TensorView, 'firstRow' | 'rows'>, row: number): number {
  if (!rows) return firstRow + row;
  const { run, order } = rows;
  const group = run * order.length;
  const within = row % group;
  return firstRow + row - within + order[Math.floor(within / run)]! * run + (within % run);
}

/** Number of values of a tensor. */
export const countOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Number of rows. A vector has one row per value, as a bias has one value per row of its matrix. */
const rowsOf = (shape: readonly number[]): number => countOf(shape.length > 1 ? shape.slice(0, -1) : shape);

/** Reads each run of rows straight into `target`. */
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

/** Reads whole groups of rows, then copies each row to its place. */
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
