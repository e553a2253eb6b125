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
  /** Slabs to load first; threads take them one by one. */
  readonly load?: LoadList;
}

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

export interface LoadList {
  readonly tasks: readonly SlabTask[];
  /** One for each memory. */
  readonly areas: readonly LoadAreas[];
}

/** Reads bytes of a file from `position` on. @returns their number, 0 at the end of the file */
export type ReadFile = (descriptor: number, position: number, target: Uint8Array) => number;
