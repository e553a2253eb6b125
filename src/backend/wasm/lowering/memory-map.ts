/**
 * Where everything lies in one WebAssembly memory:
 *
 *   signals and control | batch arrays | page tables | tape | rope rows | scratch per thread | row buffers | weights | cache pages
 *
 * The cache comes last, so that it grows with the memory. While weights are loaded, its place holds the staging area.
 */
import { memoryRefused, OutOfMemoryError } from '../../../errors.ts';
import { pageBytes } from '../../../kernels/kv.ts';
import { matrixBytes, padded } from '../../../kernels/layout.ts';
import { RECORD_BYTES } from '../../../kernels/record.ts';
import { layoutBuffers } from '../../../plan/memory.ts';
import type { KvCacheSpec, Plan, PlannedWeight, Step } from '../../../plan/step.ts';
import type { PlanPart } from './parts.ts';

export const WASM_PAGE = 65536;
/** Bytes that 32-bit addresses reach. */
export const MEMORY_LIMIT = 65536 * WASM_PAGE;
export const ALIGN = 64;

export const align = (bytes: number, to = ALIGN): number => Math.ceil(bytes / to) * to;

/** Hands out addresses one after the other. */
export class Allocator {
  #next: number;

  constructor(start: number) {
    this.#next = align(start);
  }

  get end(): number {
    return this.#next;
  }

  /** @throws OutOfMemoryError beyond 4 GiB */
  take(what: string, bytes: number): number {
    const address = this.#next;
    if (!(address + bytes <= MEMORY_LIMIT)) throw new OutOfMemoryError(what, bytes, MEMORY_LIMIT - address);
    this.#next = align(address + bytes);
    return address;
  }
}

/** Undefined where the engine cannot reserve the addresses, as under a limit of the process's address space. */
export function reserveMemory(initial: number, maximum: number, shared: boolean): WebAssembly.Memory | undefined {
  try {
    return new WebAssembly.Memory({ initial, maximum, shared });
  } catch {
    return undefined;
  }
}

/** A memory that starts small and grows; views are made anew after each growth. */
export class Memory {
  readonly wasm: WebAssembly.Memory;

  /** @throws OutOfMemoryError */
  constructor(bytes: number, shared: boolean) {
    const initial = Math.ceil(bytes / WASM_PAGE);
    const memory = [1, 2, 4, 8]
      .map((part) => Math.max(initial, MEMORY_LIMIT / WASM_PAGE / part))
      .reduce<WebAssembly.Memory | undefined>(
        (made, maximum) => made ?? reserveMemory(initial, maximum, shared),
        undefined,
      );
    if (memory) this.wasm = memory;
    else {
      throw memoryRefused(bytes);
    }
  }

  get byteLength(): number {
    return this.wasm.buffer.byteLength;
  }

  /** Grows to at least `bytes`. @throws OutOfMemoryError; the memory stays as it was */
  reserve(what: string, bytes: number): void {
    const missing = Math.ceil((bytes - this.byteLength) / WASM_PAGE);
    if (missing <= 0) return;
    try {
      this.wasm.grow(missing);
    } catch {
      throw new OutOfMemoryError(what, bytes - this.byteLength, MEMORY_LIMIT - this.byteLength);
    }
  }

  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.wasm.buffer, address, length);
  }

  i32(address: number, length: number): Int32Array {
    return new Int32Array(this.wasm.buffer, address, length);
  }

  f32(address: number, length: number): Float32Array {
    return new Float32Array(this.wasm.buffer, address, length);
  }
}

/** Most page-table entries of one forward, over all its sequences. */
export const TABLE_ENTRIES = 65536;
/** Private area of each thread; kernels say what they need of it. */
export const SCRATCH_BYTES = 512 * 1024;
/** Where the regions begin: everything below belongs to signals and control. */
export const FIRST_REGION = 4096;

export interface MemoryMap {
  readonly maxRows: number;
  readonly maxWanted: number;
  /** i32 per row. */
  readonly tokens: number;
  readonly types: number;
  readonly positions: number;
  readonly sequences: number;
  /** 0, 1, 2 ...: index of each row in the rope rows. */
  readonly rowNumbers: number;
  /** i32 per wanted row. */
  readonly wanted: number;
  /** Addresses of the page tables, one per sequence, and the entries themselves. */
  readonly tables: number;
  readonly tableEntries: number;
  readonly tape: number;
  /** Cos and sin of each row's position, per rope table. */
  readonly ropes: readonly number[];
  readonly scratch: number;
  /** i32 per expert: its number of rows. Then, maxRows for each expert, i32 numbers of these rows and f32 shares. */
  readonly experts: { readonly counts: number; readonly lists: number; readonly shares: number };
  /** Row buffers of the plan. */
  readonly buffers: readonly number[];
  /**
   * Quantized rows per activation format, and apart from each other those that threads write by rows and by columns: while
   * one thread still reads the ones, another may write the others.
   */
  readonly quantized: ReadonlyMap<string, number>;
  /** Weights; those that share another's storage have its address. 0 for those of other parts. */
  readonly weights: readonly number[];
  /** Cache pages: page p of cache c is at `cache + offset[c] + p * pageStride`. */
  readonly cache: number;
  readonly cacheOffsets: readonly number[];
  readonly pageStride: number;
}

export interface MapOptions {
  readonly plan: Plan;
  readonly part: PlanPart;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly threads: number;
  /** Bytes of quantized rows per activation format. */
  readonly quantizedBytes: ReadonlyMap<string, number>;
}

/** @throws OutOfMemoryError when the weights do not fit 32-bit addresses */
export function mapMemory({ plan, part, maxRows, maxWanted, threads, quantizedBytes }: MapOptions): MemoryMap {
  // Packing takes at most one record for each weight, and one that looks at the bytes first.
  const records = part.steps.reduce((sum, step) => sum + mostRecords(step), part.weights.size + 1);
  const tapeBytes = records * RECORD_BYTES;
  const experts = part.steps.reduce((most, step) => Math.max(most, step.op === 'experts' ? step.gate.length : 0), 0);
  const room = new Allocator(FIRST_REGION);
  const perRow = (what: string): number => room.take(what, maxRows * 4);
  const head = {
    maxRows,
    maxWanted,
    tokens: perRow('tokens'),
    types: perRow('token types'),
    positions: perRow('positions'),
    sequences: perRow('sequences'),
    rowNumbers: perRow('row numbers'),
    wanted: room.take('wanted rows', maxWanted * 4),
    tables: perRow('page tables'),
    tableEntries: room.take('page tables', TABLE_ENTRIES * 4),
    tape: room.take('the tape', tapeBytes),
    ropes: plan.ropes.map(({ rotary }) => room.take('rope rows', maxRows * rotary * 4)),
    scratch: room.take('scratch', threads * SCRATCH_BYTES),
    experts: {
      counts: room.take('expert counts', experts * 4),
      lists: room.take('expert rows', experts * maxRows * 4),
      shares: room.take('expert shares', experts * maxRows * 4),
    },
  };
  const layout = layoutBuffers({ ...plan, steps: part.steps }, maxRows, maxWanted, part.crossing);
  const rows = room.take('row buffers', layout.byteLength);
  const quantized = new Map(
    [...quantizedBytes].flatMap(([key, bytes]) =>
      ['rows', 'columns'].map((divided) => [`${key} ${divided}`, room.take('quantized rows', bytes)] as const),
    ),
  );
  const weights: number[] = [];
  for (const [id, weight] of plan.weights.entries()) {
    const address = part.weights.has(id) ? room.take(weight.name, heldBytes(weight)) : 0;
    weights.push(weight.shares === undefined ? address : weights[weight.shares]!);
  }
  let pageStride = 0;
  const cacheOffsets = plan.caches.map((spec, id) => {
    const offset = pageStride;
    if (part.caches.has(id)) pageStride += cachePageBytes(spec);
    return offset;
  });
  return {
    ...head,
    buffers: layout.offsets.map((offset) => rows + offset),
    quantized,
    weights,
    cache: room.end,
    cacheOffsets,
    pageStride,
  };
}

/** Most records of the tape that a step becomes. */
function mostRecords(step: Step): number {
  if (step.op !== 'experts') return 2;
  // Rows gathered, three products with quantized rows in front of them, the activation, the way back.
  return 2 + 9 * step.gate.length;
}

/** Bytes of one page of a cache. */
export const cachePageBytes = (spec: KvCacheSpec): number => align(pageBytes(spec));

/** Bytes of a weight as it lies in memory, padding included. */
export function heldBytes({ shape, storage }: PlannedWeight): number {
  const [rows, columns] = shape as [number, number | undefined];
  return columns === undefined ? padded(rows) * 4 : matrixBytes(storage, rows, columns);
}
