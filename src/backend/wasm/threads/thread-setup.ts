/** What a thread is started with. */
import type { FilePlace } from '../../backend.ts';

export interface ThreadSetup {
  /** One for each part of the plan. The signals lie in the first one, a control block in each. */
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
  /** Cores that threads may use: with more threads at work than that, a spinning one keeps another off its core. */
  readonly cores: number;
  /** What the threads load first, each as much as it gets to. */
  readonly load?: LoadList;
}

/** Walks `steps` records from address `tape` of a memory as one of `threads`; not 0 when a thread failed. */
export type WalkTape = (memory: number, tape: number, steps: number, threads: number) => number;

/** A slab that a thread can read by itself. */
export interface SlabTask {
  /** Index of the memory. */
  readonly memory: number;
  /** What lies side by side in the staging area. */
  readonly ranges: readonly (FilePlace & { readonly length: number })[];
  readonly bytes: number;
  /** A look at all values, then packing, for a staging area at address 0. */
  readonly tape: Int32Array;
  readonly quantizes: boolean;
}

/** Where in a memory each thread has its area: room for the largest slab, then for its tape. */
export interface LoadAreas {
  readonly address: number;
  readonly slabBytes: number;
  /** Of all. */
  readonly bytes: number;
}

export interface LoadList {
  readonly tasks: readonly SlabTask[];
  /** One for each memory. */
  readonly areas: readonly LoadAreas[];
}

/** Fills `target` with bytes of a file from `position` on, and returns how many there were. */
export type ReadFile = (descriptor: number, position: number, target: Uint8Array) => number;
