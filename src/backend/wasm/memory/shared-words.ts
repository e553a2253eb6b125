/** Words at the beginning of the first memory, by which threads and caller communicate. */

/** Byte addresses. */
export const sharedWords = {
  /** Increases by EPOCH with each walk; the remainder modulo EPOCH is the number of participating threads. */
  epoch: 64,
  command: 128,
  tape: 132,
  steps: 136,
  memory: 140,
  /** For loading (thread-load.ts): index of the next slab, and number of threads that have finished. */
  nextSlab: 144,
  loaded: 148,
  /** Microseconds that threads spent on loading. */
  readTime: 152,
  quantizeTime: 156,
  packTime: 160,
  errorLength: 252,
  error: 256,
  errorCapacity: 512,
  /** Per thread: the slab that it is loading, counted from 1, or 0. */
  held: 768,
} as const;
export const viewSharedWords = ({ memories }: { readonly memories: readonly WebAssembly.Memory[] }): Int32Array =>
  new Int32Array(memories[0]!.buffer, 0, 256);

/** Address of the kernels' control block (src/kernels/barrier.ts) in each memory. */
export const controlAddress = 1024;
