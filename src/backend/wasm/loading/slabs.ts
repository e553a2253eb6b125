/** Cuts tensors into slabs that fit the staging area. Each byte is read once. */
import { BLOCK, LANES } from '../../../kernels/layout.ts';
import { type PlannedWeight, sourceRow, type WeightSource } from '../../../plan/step.ts';

export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** A piece of a tensor, and the weights that use it. */
export interface Slab {
  readonly tensor: string;
  /** Byte ranges relative to the tensor; consecutive in the staging area. */
  readonly ranges: readonly ByteRange[];
  readonly parts: readonly SlabPart[];
}

export interface SlabPart {
  /** Index into the plan's weights. */
  readonly weight: number;
  /** First output row of the weight in this slab (0 for transposed weights, whose slabs hold all rows). */
  readonly firstRow: number;
  readonly rows: number;
  /** First column (along `in`) of the weight in this slab. */
  readonly firstColumn: number;
  readonly columns: number;
  /** Bytes from the slab's start to the part's first value. */
  readonly offset: number;
  /** Bytes from one line of the file to the next: a row, or a column when transposed. */
  readonly lineBytes: number;
}

export const slabBytes = ({ ranges }: Slab): number => ranges.reduce((sum, { start, end }) => sum + end - start, 0);

/** Largest and preferred number of bytes of a slab. */
interface Room {
  readonly capacity: number;
  readonly enough: number;
}

/** A weight to be read, with its index in the plan. */
export interface Wanted {
  readonly index: number;
  readonly weight: PlannedWeight;
}

/**
 * @param shapeOf shape of a tensor as the file has it
 * @param sizeOf bytes per value of a tensor, a fraction for blocks
 * @param capacity largest slab in bytes
 * @param enough preferred bytes of a slab of a tensor, unless one group exceeds them
 * @throws RangeError when one group exceeds `capacity`
 */
export function planSlabs(
  weights: readonly Wanted[],
  shapeOf: (tensor: string) => readonly number[],
  sizeOf: (tensor: string) => number,
  capacity: number,
  enough: (tensor: string) => number = () => capacity,
): Slab[] {
  const byTensor = new Map<string, Wanted[]>();
  for (const { index, weight } of weights) {
    if (weight.shares !== undefined) continue;
    const list = byTensor.get(weight.source.tensor);
    if (list) list.push({ index, weight });
    else byTensor.set(weight.source.tensor, [{ index, weight }]);
  }
  return [...byTensor].flatMap(([tensor, wanted]) => {
    const size = sizeOf(tensor);
    const matrices = wanted.filter(({ weight }) => weight.shape.length === 2);
    const room = { capacity, enough: enough(tensor) };
    const transposed = matrices.filter(({ weight }) => weight.source.transposed);
    return [
      ...wanted.filter(({ weight }) => weight.shape.length === 1).map((w) => vectorSlab(tensor, w, size)),
      ...matrices.filter((w) => !transposed.includes(w)).flatMap((w) => rowSlabs(tensor, w, size, room)),
      ...(transposed.length ? columnSlabs(tensor, transposed, shapeOf(tensor), size, room) : []),
    ];
  });
}

function vectorSlab(tensor: string, { index, weight }: Wanted, size: number): Slab {
  const [count] = weight.shape as [number];
  const part = {
    weight: index,
    firstRow: 0,
    rows: 1,
    firstColumn: 0,
    columns: count,
    offset: 0,
    lineBytes: count * size,
  };
  return { tensor, ranges: rangesOf(weight.source, 0, count, size), parts: [part] };
}

/** Whole rows of a matrix stored [out, in]. */
function rowSlabs(tensor: string, { index, weight }: Wanted, size: number, room: Room): Slab[] {
  const [rows, columns] = weight.shape as [number, number];
  const lineBytes = columns * size;
  // A slab starts at the first row of a lane group.
  const step = linesPerSlab(tensor, lineBytes, LANES, room);
  const slabs: Slab[] = [];
  for (let firstRow = 0; firstRow < rows; firstRow += step) {
    const count = Math.min(step, rows - firstRow);
    const part = { weight: index, firstRow, rows: count, firstColumn: 0, columns, offset: 0, lineBytes };
    slabs.push({ tensor, ranges: rangesOf(weight.source, firstRow, count, lineBytes), parts: [part] });
  }
  return slabs;
}

/** Byte ranges of `count` rows of a weight, from `firstRow` on, of `bytes` each. */
function rangesOf(source: WeightSource, firstRow: number, count: number, bytes: number): ByteRange[] {
  const ranges: ByteRange[] = [];
  const run = source.runs?.rows ?? Number.POSITIVE_INFINITY;
  for (let row = firstRow; row < firstRow + count; ) {
    const rows = Math.min(run - (row % run), firstRow + count - row);
    const start = sourceRow(source, row) * bytes;
    ranges.push({ start, end: start + rows * bytes });
    row += rows;
  }
  return ranges;
}

/** Lines of a matrix stored [in, out]. Weights that share the tensor take their columns from the same slab. */
function columnSlabs(
  tensor: string,
  wanted: readonly Wanted[],
  shape: readonly number[],
  size: number,
  room: Room,
): Slab[] {
  const [inputs, outputs] = shape as [number, number];
  const lineBytes = outputs * size;
  // A slab starts at the first column of a quantization block.
  const step = linesPerSlab(tensor, lineBytes, BLOCK, room);
  const slabs: Slab[] = [];
  for (let firstColumn = 0; firstColumn < inputs; firstColumn += step) {
    const columns = Math.min(step, inputs - firstColumn);
    const start = firstColumn * lineBytes;
    const parts = wanted.map(({ index, weight }) => ({
      weight: index,
      firstRow: 0,
      rows: weight.shape[0]!,
      firstColumn,
      columns,
      offset: weight.source.first * size,
      lineBytes,
    }));
    slabs.push({ tensor, ranges: [{ start, end: start + columns * lineBytes }], parts });
  }
  return slabs;
}

function linesPerSlab(tensor: string, lineBytes: number, multiple: number, { capacity, enough }: Room): number {
  if (lineBytes * multiple > capacity)
    throw new RangeError(`${tensor}: ${multiple} lines of ${lineBytes} bytes exceed the staging area of ${capacity}`);
  return Math.max(1, Math.floor(enough / lineBytes / multiple)) * multiple;
}
