/** State of the lowering: addresses of buffers, weights and row counts, and the content of the quantized rows. */
import { control } from '../../../kernels/barrier.ts';
import { type ActivationFormat, activationStride } from '../../../kernels/layout.ts';
import { quantizeRowsKernel, quantizeRowsRecord } from '../../../kernels/quantize-rows.ts';
import { rowBytes } from '../../../plan/memory.ts';
import type { BufferId, Plan, WeightId } from '../../../plan/step.ts';
import type { Storage } from '../../../quant/storage.ts';
import { type Choice, formatKey } from '../choosing/choice.ts';
import { controlAddress } from '../memory/shared-words.ts';
import type { Access, TapeStep } from './barriers.ts';
import type { KernelSet } from './kernel-set.ts';
import type { MemoryMap } from './memory-map.ts';

/** A record of the tape, with the accesses by which barriers are placed. */
export interface TapeRecord extends TapeStep {
  /** Index into the plan's steps. A product and its quantization have the same one. */
  readonly step: number;
  readonly kernel: number;
  readonly words: Int32Array;
  readonly wanted: boolean;
  /** Skipped if this expert has no rows. */
  readonly expert?: ExpertRows;
}

/** Rows of one expert. `countAt`: address of their number. */
export interface ExpertRows {
  readonly countAt: number;
}

export type StepRecord = Omit<TapeRecord, 'step'>;

/** Addresses of the words that hold the forward's row counts. */
export const countAt = { rows: controlAddress + control.rows, wanted: controlAddress + control.wanted } as const;

export interface LowerOptions {
  readonly plan: Plan;
  readonly map: MemoryMap;
  readonly choice: Choice;
  readonly kernels: KernelSet;
}

export class LoweringContext {
  readonly plan: Plan;
  readonly map: MemoryMap;
  readonly choice: Choice;
  readonly kernels: KernelSet;
  /** The expert whose rows the buffers hold at this point. */
  expert: ExpertRows | undefined;
  /** Content of each area of quantized rows at this point: a buffer, and the version that was quantized. */
  readonly #quantized = new Map<string, { readonly x: BufferId; readonly version: number }>();
  /** Times each buffer has been written so far. */
  readonly #versions = new Map<BufferId, number>();
  /** Buffers that were written column-wise. */
  readonly #columns = new Set<BufferId>();

  constructor({ plan, map, choice, kernels }: LowerOptions) {
    this.plan = plan;
    this.map = map;
    this.choice = choice;
    this.kernels = kernels;
  }

  wrote(buffer: BufferId): void {
    this.#versions.set(buffer, (this.#versions.get(buffer) ?? 0) + 1);
  }

  at(buffer: BufferId): number {
    return this.map.buffers[buffer]!;
  }

  width(buffer: BufferId): number {
    return this.plan.buffers[buffer]!.width;
  }

  /** Address of the row count of a buffer. */
  rows(buffer: BufferId): number {
    if (this.expert) return this.expert.countAt;
    return this.isWanted(buffer) ? countAt.wanted : countAt.rows;
  }

  isWanted(buffer: BufferId): boolean {
    return this.plan.buffers[buffer]!.rows === 'wanted';
  }

  access(buffer: BufferId, pattern: Access['pattern']): Access {
    const start = this.at(buffer);
    const rows = this.isWanted(buffer) ? this.map.maxWanted : this.map.maxRows;
    return { buffer: `rows ${buffer}`, start, end: start + rows * rowBytes(this.width(buffer)), pattern };
  }

  weight(id: WeightId): { readonly storage: Storage; readonly at: number; readonly shape: readonly number[] } {
    const { shares, shape } = this.plan.weights[id]!;
    const held = shares ?? id;
    return { storage: this.plan.weights[held]!.storage, at: this.map.weights[held]!, shape };
  }

  /** Address of a vector, 0 for none. */
  vector(id: WeightId | undefined): number {
    return id === undefined ? 0 : this.weight(id).at;
  }

  /** A row-wise step: divided by rows, or replicated if rows are few. */
  rowWise(out: BufferId, kernel: number, words: Int32Array, reads: BufferId[], inPlace = false): StepRecord {
    return {
      kernel,
      words,
      wanted: this.isWanted(out),
      replicable: !inPlace,
      fence: false,
      reads: reads.map((x) => this.access(x, 'rows')),
      writes: [this.access(out, 'rows')],
    };
  }

  /** A column-wise step, between two products: it needs no barrier after the first. */
  columnWise(out: BufferId, kernel: number, words: Int32Array, reads: BufferId[]): StepRecord {
    this.#columns.add(out);
    return {
      kernel,
      words,
      wanted: this.isWanted(out),
      replicable: false,
      fence: false,
      reads: reads.map((x) => this.access(x, 'columns')),
      writes: [this.access(out, 'columns')],
    };
  }

  /** Address of the quantized rows of x, and the record that quantizes them unless they are still there. */
  quantize(x: BufferId, format: ActivationFormat): { at: number; access: Access; part?: StepRecord } {
    const divided = this.#columns.has(x) ? 'columns' : 'rows';
    const key = `${formatKey(format)} ${divided}`;
    const at = this.map.quantized.get(key)!;
    const width = this.width(x);
    const stride = activationStride(format, width);
    const version = this.#versions.get(x) ?? 0;
    const rows = this.isWanted(x) ? this.map.maxWanted : this.map.maxRows;
    const access: Access = {
      buffer: `quantized ${key} of ${width}`,
      start: at,
      end: at + rows * stride,
      pattern: divided,
    };
    const held = this.#quantized.get(key);
    if (held?.x === x && held.version === version) return { at, access };
    this.#quantized.set(key, { x, version });
    const kernel = this.kernels.index('quantize', key, (m) => quantizeRowsKernel(m, format, divided));
    const words = quantizeRowsRecord.words({ x: this.at(x), out: at, outStride: stride, rows: this.rows(x), width });
    const part: StepRecord = {
      kernel,
      words,
      wanted: this.isWanted(x),
      replicable: divided === 'rows',
      fence: false,
      reads: [this.access(x, divided)],
      writes: [access],
    };
    return { at, access, part };
  }
}
