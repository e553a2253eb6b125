/**
 * Loading by independent threads: each takes the next slab, reads it from the file into its own area and packs it, until none
 * is left. No thread waits for another, and a slab stays in the caches of one core.
 */
import { CHECK_LINE, FOUND } from '../../../kernels/finite.ts';
import { RECORD_BYTES } from '../../../kernels/record.ts';
import { sharedWords, viewSharedWords } from '../memory/shared-words.ts';
import {
  type LoadAreas,
  type LoadList,
  type ReadFile,
  SLAB_WORDS,
  type SlabTask,
  type ThreadSetup,
  type WalkTape,
} from './thread-setup.ts';

/** Index of the word with the source address, the first argument of check and pack records. */
const SOURCE = 2;
const RECORD_WORDS = RECORD_BYTES / 4;

/** Address of a thread's area. */
export const areaOf = ({ address, bytes }: LoadAreas, thread: number): number => address + thread * bytes;

/** Size of a thread's area, for slabs of at most `slabBytes` and tapes of `records` records. */
export function areaBytes(slabBytes: number, records: number): Omit<LoadAreas, 'address'> {
  // Kernels read whole lines, which may reach beyond the end of a slab.
  const staging = Math.ceil(slabBytes / CHECK_LINE + 1) * CHECK_LINE;
  return { slabBytes: staging, bytes: staging + records * RECORD_BYTES };
}

/** What a thread needs to load: its own kernels, and how it reads files. */
export interface Loader {
  readonly setup: Pick<ThreadSetup, 'thread' | 'memories'>;
  readonly walk: WalkTape;
  readonly read: ReadFile;
}

/** Checks and packs the slab in the thread's area. @returns whether all its values are valid */
export function packSlab(
  { memory, bytes, tape }: SlabTask,
  areas: readonly LoadAreas[],
  loader: Omit<Loader, 'read'>,
): boolean {
  const { buffer } = loader.setup.memories[memory]!;
  const area = areaOf(areas[memory]!, loader.setup.thread);
  const at = area + areas[memory]!.slabBytes;
  new Uint8Array(buffer, area + bytes, CHECK_LINE).fill(0);
  const words = new Int32Array(buffer, at, tape.length);
  words.set(tape);
  for (let record = 0; record < tape.length; record += RECORD_WORDS) words[record + SOURCE]! += area;
  loader.walk(memory, at, tape.length / RECORD_WORDS, 1);
  return words[FOUND] === 0;
}

/** Reads a slab into the thread's area. @returns whether the files were long enough */
function readSlab({ memory, ranges }: SlabTask, areas: readonly LoadAreas[], { setup, read }: Loader): boolean {
  let to = areaOf(areas[memory]!, setup.thread);
  for (const { descriptor, offset, length } of ranges) {
    const target = new Uint8Array(setup.memories[memory]!.buffer, to, length);
    for (let done = 0; done < length; ) {
      const count = read(descriptor, offset + done, target.subarray(done));
      if (count === 0) return false;
      done += count;
    }
    to += length;
  }
  return true;
}

/**
 * Loads slabs of the list until none is left or the time is up. A thread that cannot read a slab, or finds an invalid value,
 * stops and keeps the slab marked as held: the caller loads it again and reports the error.
 * @returns whether the time was up first
 */
export function loadSlabs(
  { tasks, areas, log }: LoadList,
  loader: Loader,
  milliseconds = Number.POSITIVE_INFINITY,
): boolean {
  const words = viewSharedWords(loader.setup);
  const held = heldWord(loader.setup.thread);
  const noted = log && new Float64Array(log.buffer, 8 * log.stride * loader.setup.thread, log.stride);
  const times = { read: 0, quantize: 0, pack: 0 };
  let now = performance.now();
  const end = now + milliseconds;
  const lap = (kind: keyof typeof times): void => {
    const before = now;
    now = performance.now();
    times[kind] += now - before;
  };
  try {
    while (now < end) {
      const index = takeSlab(words);
      const task = tasks[index];
      if (!task) return false;
      Atomics.store(words, held, index + 1);
      if (!readSlab(task, areas, loader)) return false;
      const begin = now;
      lap('read');
      const read = now;
      if (!packSlab(task, areas, loader)) return false;
      lap(task.quantizes ? 'quantize' : 'pack');
      noted?.set([index, begin, read, now], 1 + SLAB_WORDS * noted[0]!++);
      Atomics.store(words, held, 0);
    }
    return true;
  } catch {
    // The slab is still held.
    return false;
  } finally {
    Atomics.add(words, sharedWords.readTime >> 2, times.read * 1000);
    Atomics.add(words, sharedWords.quantizeTime >> 2, times.quantize * 1000);
    Atomics.add(words, sharedWords.packTime >> 2, times.pack * 1000);
  }
}

/** Takes the next slab. @returns its index, beyond the last one if none is left */
export const takeSlab = (words: Int32Array): number => Atomics.add(words, sharedWords.nextSlab >> 2, 1);

/** Index of the shared word with the slab that a thread holds, counted from 1, or 0. */
export const heldWord = (thread: number): number => (sharedWords.held >> 2) + thread;
