/** Second moments, their factorization, and quantization with error feedback, in kernels on all threads. */
import { KernelSet } from '../backend/wasm/lowering/kernel-set.ts';
import { KernelRunner } from '../backend/wasm/measuring/kernel-runner.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import { ModelError } from '../errors.ts';
import { backKernel, backRecord, correctKernel, correctRecord } from '../kernels/calibration/correct.ts';
import { feedbackKernel, feedbackRecord, type PlainBlock, plainBlocks } from '../kernels/calibration/feedback.ts';
import { type SuperBlock, superBlocks, superKernel, superRecord } from '../kernels/calibration/feedback-k.ts';
import {
  PANEL,
  panelsKernel,
  panelsRecord,
  productsKernel,
  productsRecord,
  scaleRowsKernel,
  scaleRowsRecord,
  solveKernel,
  solveRecord,
} from '../kernels/calibration/products.ts';

/** Rows per call of the products. */
const CHUNK = 256;
/** Rows of a factorization step. */
const STEP = 64;
/** Rows of a weight per group of lanes. */
export const LANES = 16;

/** Sum of x x^T over rows x: panels of 16 columns, of which elements with row <= column count. [width * width] */
export interface Moments {
  readonly width: number;
  /** Rows summed. */
  readonly rows: number;
  readonly values: Float32Array;
  /** Sum of x (x - o)^T, times a share, o being what the model had before it was quantized: whole panels. [width * width] */
  readonly changes?: Float32Array;
}

/** Codes and scales of rows, sixteen rows side by side. */
export interface Codes {
  readonly rows: number;
  readonly columns: number;
  /** [rows / 16][columns][16] */
  readonly codes: Uint8Array;
  /** [rows / 16][columns / 32][16]; of K types the integers of scale and minimum of each block: [rows / 16][blocks][2][16] */
  readonly scales: Float32Array;
  /** Scale and minimum of super-blocks of K types. [rows / 16][columns / 256][2][16] */
  readonly supers: Float32Array;
}

/** Types that rows are quantized to. */
export type FeedbackType = PlainBlock | SuperBlock;

const isSuper = (type: FeedbackType): type is SuperBlock => Object.hasOwn(superBlocks, type);

type Kernel = 'panels' | 'products' | 'subtracted' | 'solve' | 'scale' | 'back' | 'correct' | FeedbackType;

export class Algebra {
  readonly #runner: KernelRunner;
  readonly #kernels: Readonly<Partial<Record<Kernel, number>>>;
  /** First address that areas may use. */
  readonly #base: number;
  #factored:
    | {
        readonly width: number;
        readonly importance: number;
        readonly matrix: number;
        /** What rows are corrected by for inputs that changed; undefined: they did not. */
        readonly correction: number | undefined;
        readonly end: number;
      }
    | undefined;

  private constructor(runner: KernelRunner, kernels: Readonly<Partial<Record<Kernel, number>>>) {
    this.#runner = runner;
    this.#kernels = kernels;
    this.#base = runner.allocator.end;
  }

  /** @param types that rows will be quantized to */
  static async open(
    host: WasmHost,
    { threads, wide, types }: { threads: number; wide: boolean; types: readonly FeedbackType[] },
  ): Promise<Algebra> {
    const set = new KernelSet();
    const kernels = {
      panels: set.index('calibration', 'panels', panelsKernel),
      products: set.index('calibration', 'products', (m) => productsKernel(m, false)),
      subtracted: set.index('calibration', 'subtracted', (m) => productsKernel(m, true)),
      solve: set.index('calibration', 'solve', solveKernel),
      scale: set.index('calibration', 'scale', scaleRowsKernel),
      back: set.index('calibration back', 'back', backKernel),
      correct: set.index('calibration correct', 'correct', correctKernel),
      ...Object.fromEntries(
        types.map((type) => [
          type,
          set.index(`feedback ${type}`, type, (m) => (isSuper(type) ? superKernel(m, type) : feedbackKernel(m, type))),
        ]),
      ),
    };
    return new Algebra(await KernelRunner.open(host, set, { threads, wide, bytes: 0 }), kernels);
  }

  close(): Promise<void> {
    return this.#runner.close();
  }

  /** Sums x x^T over the rows that `chunks` gives, each [count, width]. Width must be a multiple of 32. */
  async moments(width: number, chunks: Iterable<Float32Array>): Promise<Moments> {
    return this.#moments(width, chunks);
  }

  /**
   * The same with `changes`, for inputs [rows, width] and what they were before.
   * @param share how much of the change weights are to make up for
   */
  changedMoments(width: number, inputs: Float32Array, before: Float32Array, share = 1): Promise<Moments> {
    return this.#moments(width, [inputs], { values: before, share });
  }

  async #moments(
    width: number,
    chunks: Iterable<Float32Array>,
    before?: { values: Float32Array; share: number },
  ): Promise<Moments> {
    const stride = CHUNK * 4 * PANEL;
    const square = width * width;
    const bytes = [
      CHUNK * width * 4,
      CHUNK * width * 4,
      square * 4,
      ...(before ? [CHUNK * width * 4, square * 4] : []),
    ];
    const [x, panels, out, changePanels, changes] = this.#areas(...bytes);
    const { memory } = this.#runner;
    memory.f32(out!, square).fill(0);
    if (before) memory.f32(changes!, square).fill(0);
    this.#factored = undefined;
    let rows = 0;
    for (const chunk of chunks) {
      const count = chunk.length / width;
      for (let first = 0; first < count; first += CHUNK) {
        const some = Math.min(CHUNK, count - first);
        memory.f32(x!, some * width).set(chunk.subarray(first * width, (first + some) * width));
        await this.#run('panels', panelsRecord.words({ from: x!, to: panels!, rows: some, width, stride }));
        await this.#run(
          'products',
          productsRecord.words({
            x: panels!,
            xStride: stride,
            y: panels!,
            yStride: stride,
            rows: some,
            out: out!,
            outStride: width * 4 * PANEL,
            firstPanel: 0,
            endPanel: width / PANEL,
            panels: width / PANEL,
            triangular: 1,
          }),
        );
        if (before) {
          const difference = memory.f32(x!, some * width);
          const from = rows * width;
          for (let i = 0; i < difference.length; i++)
            difference[i] = before.share * (difference[i]! - before.values[from + i]!);
          const to = changePanels!;
          await this.#run('panels', panelsRecord.words({ from: x!, to, rows: some, width, stride }));
          await this.#run(
            'products',
            productsRecord.words({
              x: panels!,
              xStride: stride,
              y: to,
              yStride: stride,
              rows: some,
              out: changes!,
              outStride: width * 4 * PANEL,
              firstPanel: 0,
              endPanel: width / PANEL,
              panels: width / PANEL,
              triangular: 0,
            }),
          );
        }
        rows += some;
      }
    }
    const values = memory.f32(out!, square).slice();
    return { width, rows, values, ...(before && { changes: memory.f32(changes!, square).slice() }) };
  }

  /**
   * Factors moments for the calls of `quantize` that follow: H + damping * mean of its diagonal = U^T D U. The damping grows
   * until the factorization succeeds.
   * @param identity share of the identity, times the mean of the diagonal, that is added to the moments
   * @returns the damping
   * @throws ModelError NotFinite
   */
  async factor(moments: Moments, damping: number, name: string): Promise<number> {
    const { width, values, changes } = moments;
    const sides = changes ? 2 : 1;
    const mean = meanDiagonal(moments);
    if (!Number.isFinite(mean))
      throw new ModelError(
        'NotFinite',
        `${name}: expected finite inputs on the calibration text, found others: check the weights`,
      );
    const [importance, factors, matrix] = this.#areas(width * 4, width * 4, sides * width * width * 4);
    const { memory } = this.#runner;
    for (let more = damping; ; more = Math.max(10 * more, 1e-4)) {
      const h = memory.f32(matrix!, width * width);
      h.set(values);
      for (let k = 0; k < width; k++) h[diagonal(width, k)] = mean === 0 ? 1 : h[diagonal(width, k)]! + more * mean;
      // Columns right of the square become U^-T changes.
      if (changes) memory.f32(matrix! + width * width * 4, width * width).set(changes);
      if (!(await this.#factorInPlace(matrix!, width, sides))) {
        if (more > 1e6)
          throw new ModelError('NotFinite', `${name}: expected finite second moments, found others: check the weights`);
        continue;
      }
      const pivots = memory.f32(importance!, width);
      const inverses = memory.f32(factors!, width);
      for (let k = 0; k < width; k++) {
        const pivot = memory.f32(matrix!, width * width)[diagonal(width, k)]!;
        pivots[k] = pivot * pivot;
        inverses[k] = 1 / pivot;
      }
      const stride = width * 64;
      await this.#run(
        'scale',
        scaleRowsRecord.words({ matrix: matrix!, stride, panels: width / PANEL, factors: factors! }),
      );
      const after = matrix! + width * width * 4;
      if (changes) {
        const right = memory.f32(after, width * width);
        for (let at = 0; at < right.length; at += PANEL) {
          const inverse = inverses[(at / PANEL) % width]!;
          for (let i = at; i < at + PANEL; i++) right[i]! *= inverse;
        }
        const groups = width / PANEL;
        await this.#run('back', backRecord.words({ factors: matrix!, stride, columns: width, y: after, groups }));
      }
      this.#factored = {
        width,
        importance: importance!,
        matrix: matrix!,
        correction: changes ? after : undefined,
        end: matrix! + sides * width * width * 4,
      };
      return more;
    }
  }

  /** Rows of 64: update by the rows above, factor the square, solve the rest. @returns false for a pivot that is not positive */
  async #factorInPlace(matrix: number, width: number, sides: number): Promise<boolean> {
    const { memory } = this.#runner;
    const stride = width * 4 * PANEL;
    const panels = (sides * width) / PANEL;
    for (let first = 0; first < width; first += STEP) {
      const size = Math.min(STEP, width - first);
      const ends = { firstPanel: first / PANEL, endPanel: (first + size) / PANEL };
      const sides = { x: matrix, xStride: stride, y: matrix, yStride: stride, out: matrix, outStride: stride };
      if (first > 0)
        await this.#run('subtracted', productsRecord.words({ ...sides, ...ends, rows: first, panels, triangular: 1 }));
      if (!factorSquare(memory.f32(matrix, width * width), width, first, size)) return false;
      await this.#run('solve', solveRecord.words({ matrix, stride, panels, first, size }));
    }
    return true;
  }

  /**
   * Quantizes rows [rows, width] with the factored moments; rows beyond the last group of sixteen count as zeros.
   * @param corrects whether rows make up for inputs that changed, if the moments have changes
   */
  async quantize(type: FeedbackType, values: Float32Array, corrects = true): Promise<Codes> {
    const { width, importance, matrix, end } = this.#factored!;
    const correction = corrects ? this.#factored!.correction : undefined;
    const rows = values.length / width;
    const groups = Math.ceil(rows / LANES);
    const tried = isSuper(type) ? superBlocks[type].tried.flat() : plainBlocks[type].factors;
    const scaleCount = isSuper(type) ? (width / superBlocks[type].block) * 2 * LANES : width / 2;
    const superCount = isSuper(type) ? width / 8 : 0;
    const [list, w, codes, scales, supers, given] = this.#areasFrom(end, [
      tried.length * 4,
      groups * width * 64,
      groups * width * LANES,
      groups * scaleCount * 4,
      groups * superCount * 4,
      correction === undefined ? 0 : groups * width * 64,
    ]) as [number, number, number, number, number, number];
    const { memory } = this.#runner;
    memory.f32(list, tried.length).set(tried);
    transposeGroups(values, rows, width, memory.f32(correction === undefined ? w : given, groups * width * LANES));
    if (correction !== undefined) {
      const stride = width * 64;
      await this.#run(
        'correct',
        correctRecord.words({ w: given, out: w, matrix: correction, stride, columns: width, groups }),
      );
    }
    const common = {
      w,
      factors: matrix,
      stride: width * 64,
      columns: width,
      groups,
      importance,
      codes,
      scales,
      tried: list,
    };
    await this.#run(
      type,
      isSuper(type)
        ? superRecord.words({ ...common, supers, count: tried.length / 2 })
        : feedbackRecord.words({ ...common, count: tried.length }),
    );
    return {
      rows,
      columns: width,
      codes: memory.bytes(codes, groups * width * LANES).slice(),
      scales: memory.f32(scales, groups * scaleCount).slice(),
      supers: memory.f32(supers, groups * superCount).slice(),
    };
  }

  #areas(...sizes: number[]): number[] {
    return this.#areasFrom(this.#base, sizes);
  }

  #areasFrom(start: number, sizes: readonly number[]): number[] {
    let next = Math.ceil(start / 64) * 64;
    const addresses = sizes.map((size) => {
      const address = next;
      next = Math.ceil((next + size) / 64) * 64;
      return address;
    });
    this.#runner.memory.reserve('second moments', next);
    return addresses;
  }

  async #run(kernel: Kernel, words: Int32Array): Promise<void> {
    await this.#runner.run(this.#kernels[kernel]!, words);
  }
}

/** Index of element [k][k] in panels. */
const diagonal = (width: number, k: number): number => (k >> 4) * width * PANEL + k * PANEL + (k & 15);

export function meanDiagonal({ width, values }: Moments): number {
  let sum = 0;
  for (let k = 0; k < width; k++) sum += values[diagonal(width, k)]!;
  return sum / width;
}

/** Moments of inputs that are all alike. */
export function identityMoments(width: number): Moments {
  const values = new Float32Array(width * width);
  for (let k = 0; k < width; k++) values[diagonal(width, k)] = 1;
  return { width, rows: 0, values };
}

/** Moments divided by their mean diagonal, plus `share` times the identity. */
export function mixedWithIdentity(moments: Moments, share: number): Moments {
  const mean = meanDiagonal(moments);
  const values = moments.values.map((value) => (mean === 0 ? 0 : value / mean));
  for (let k = 0; k < moments.width; k++) values[diagonal(moments.width, k)]! += share;
  return { ...moments, values };
}

/** Factors the square of `size` rows and columns at `first` as U^T U. @returns false for a pivot that is not positive */
function factorSquare(h: Float32Array, width: number, first: number, size: number): boolean {
  const square = new Float64Array(size * size);
  const index = (row: number, column: number): number =>
    ((first + column) >> 4) * width * PANEL + (first + row) * PANEL + ((first + column) & 15);
  for (let r = 0; r < size; r++) for (let c = r; c < size; c++) square[r * size + c] = h[index(r, c)]!;
  for (let r = 0; r < size; r++) {
    const pivot = Math.sqrt(square[r * size + r]!);
    if (!(pivot > 0) || !Number.isFinite(pivot)) return false;
    for (let c = r; c < size; c++) square[r * size + c]! /= pivot;
    for (let below = r + 1; below < size; below++) {
      const factor = square[r * size + below]!;
      for (let c = below; c < size; c++) square[below * size + c]! -= factor * square[r * size + c]!;
    }
  }
  for (let r = 0; r < size; r++) for (let c = r; c < size; c++) h[index(r, c)] = square[r * size + c]!;
  return true;
}

/** Rows [rows, width] as groups of [width][16]. */
function transposeGroups(values: Float32Array, rows: number, width: number, out: Float32Array): void {
  out.fill(0);
  for (let row = 0; row < rows; row++) {
    const at = (row >> 4) * width * LANES + (row & 15);
    for (let k = 0, from = row * width; k < width; k++) out[at + k * LANES] = values[from + k]!;
  }
}
