/** What a thread is started with. */
import type { FilePlace } from '../../backend.ts';

export interface ThreadSetup {
  /** One for each part of the plan. The first has the shared words, each has a control block. */
  readonly memories: readonly WebAssembly.Memory[];
  readonly modules: readonly WebAssembly.Module[];
  /** Step kernels in the order of their table indices: module index and export name. */
  readonly kernels: readonly { readonly module: number; readonly name: string }[];
  /** Index of the module that exports `walk`. */
  readonly walker: number;
  readonly thread: number;
  readonly threads: number;
  /** Byte address of this thread's private scratch area in each memory. */
  readonly scratch: readonly number[];
  /** Available cores. With more threads than cores, waiting threads sleep instead of spinning. */
  readonly cores: number;
  /** Where this thread writes its times. */
  readonly times: Float64Array;
  /** Slabs to load first; threads take them one by one. */
  readonly load?: LoadList;
}

/**
 * Times of one thread: the origin of its clock, when its last walk began, and the marks of the walk by their slots (see
 * `markSlots`). In milliseconds of its own clock.
 */
export const timeWords = { origin: 0, start: 1, marks: 2 } as const;

/** Number of times of one thread, for tapes of so many records. */
export const timesOf = (records: number): number => timeWords.marks + 2 * records;

/** Walks `steps` records from address `tape` of a memory as one of `threads`; not 0 when a thread failed. */
export type WalkTape = (memory: number, tape: number, steps: number, threads: number) => number;

/** A slab that a thread can read by itself. */
export interface SlabTask {
  /** Index of the memory. */
  readonly memory: number;
  /** Byte ranges, consecutive in the staging area. */
  readonly ranges: readonly (FilePlace & { readonly length: number })[];
  readonly bytes: number;
  /** Records that check and pack the slab, for a staging area at address 0. */
  readonly tape: Int32Array;
  readonly quantizes: boolean;
}

/** Staging areas of all threads in one memory: each has room for the largest slab and its tape. */
export interface LoadAreas {
  readonly address: number;
  readonly slabBytes: number;
  /** Bytes of one area. */
  readonly bytes: number;
}

/**
 * Times of slabs: for each thread the number of slabs that it loaded, then for each of them its index and the times at
 * which reading began, reading ended and packing ended.
 */
export interface SlabLog {
  readonly buffer: ArrayBufferLike;
  /** Numbers per thread. */
  readonly stride: number;
}

/** Numbers of one slab in a SlabLog. */
export const SLAB_WORDS = 4;

export interface LoadList {
  readonly tasks: readonly SlabTask[];
  /** One for each memory. */
  readonly areas: readonly LoadAreas[];
  /** Where threads note when they loaded which slab; undefined: nowhere. */
  readonly log?: SlabLog | undefined;
}

/** Reads bytes of a file from `position` on. @returns their number, 0 at the end of the file */
export type ReadFile = (descriptor: number, position: number, target: Uint8Array) => number;
