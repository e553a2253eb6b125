/** Words at the beginning of the first memory, by which the threads and their caller hear of each other. */

/** Byte addresses. */
export const sharedWords = {
  /** Rises by EPOCH with each walk; the rest is how many threads it is for, read in one go with it. */
  epoch: 64,
  command: 128,
  tape: 132,
  steps: 136,
  memory: 140,
  /** Of the list that threads load by (thread-load.ts): the next slab, and how many threads have come to its end. */
  nextSlab: 144,
  loaded: 148,
  /** Microseconds that threads spent on it. */
  readTime: 152,
  quantizeTime: 156,
  packTime: 160,
  errorLength: 252,
  error: 256,
  errorCapacity: 512,
  /** For each thread the slab that it has. */
  held: 768,
} as const;
export const viewSharedWords = ({ memories }: { readonly memories: readonly WebAssembly.Memory[] }): Int32Array =>
  new Int32Array(memories[0]!.buffer, 0, 256);

/** Address of the kernels' control block (src/kernels/barrier.ts) in each memory. */
export const controlAddress = 1024;
