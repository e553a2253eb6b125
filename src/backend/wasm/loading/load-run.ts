/** Reads weights slab by slab into memory, where all threads pack them. */
import type { ModelError } from '../../../errors.ts';
import { nextTurn } from '../../../event-loop.ts';
import { CHECK_LINE, FOUND } from '../../../kernels/finite.ts';
import { RECORD_BYTES } from '../../../kernels/record.ts';
import type { Plan } from '../../../plan/step.ts';
import { dequantize } from '../../../quant/codec.ts';
import type { BackendOptions, LoadTimes } from '../../backend.ts';
import { notFinite } from '../../finite.ts';
import type { Memory } from '../memory/memory.ts';
import { sharedWords, viewSharedWords } from '../memory/shared-words.ts';
import type { Pool } from '../threads/pool.ts';
import { areaBytes, areaOf, loadSlabs, packSlab, takeSlab } from '../threads/thread-load.ts';
import {
  type LoadList,
  type ReadFile,
  SLAB_WORDS,
  type SlabLog,
  type SlabTask,
  timeWords,
} from '../threads/thread-setup.ts';
import { type LoadStep, type LoadTarget, tapeOf } from './load-plan.ts';
import { slabBytes } from './slabs.ts';

/** Concurrent reads per slab that all threads pack together: the operating system copies with several threads. */
const READS = 2;
/** Milliseconds that the calling thread loads before it yields to the event loop, for instance for an abort. */
const BURST = 30;

/** One part of the plan and its memory. */
export interface PartMemory extends LoadTarget {
  readonly memory: Memory;
}

/** Bytes of the staging area in each memory. */
export const stagingBytes = (steps: readonly LoadStep[], parts: readonly LoadTarget[], threads: number): number[] =>
  parts.map(({ index }) => stagingOf(steps, index, threads).bytes);

/** The staging area of one memory: an area for each thread, or one for slabs that all threads pack together. */
function stagingOf(
  steps: readonly LoadStep[],
  memory: number,
  threads: number,
): { bytes: number; area: ReturnType<typeof areaBytes> } {
  const here = steps.filter((step) => step.memory === memory);
  const most = (own: boolean, size: (step: LoadStep) => number): number =>
    here.reduce(
      (largest, step) => ((step.source.inFile !== undefined) === own ? Math.max(largest, size(step)) : largest),
      0,
    );
  const bytesOf = ({ slab }: LoadStep): number => slabBytes(slab);
  const area = areaBytes(most(true, bytesOf), 1 + most(true, ({ packs }) => packs.length));
  return { bytes: Math.max(most(false, bytesOf) + CHECK_LINE, threads * area.bytes), area };
}

/** Loads all slabs: those that threads read themselves, and those that the calling thread reads for all. */
export class Load {
  readonly #own: readonly LoadStep[];
  readonly #common: readonly LoadStep[];
  readonly #parts: readonly PartMemory[];
  readonly #read: ReadFile | undefined;
  readonly #plan: Plan;
  readonly #onSpan: BackendOptions['onSpan'];
  /** Slabs that threads read themselves; undefined if there are none. */
  readonly list: LoadList | undefined;

  /** Reserves staging areas, where the cache will be after loading. @throws OutOfMemoryError */
  constructor(
    steps: readonly LoadStep[],
    parts: readonly PartMemory[],
    threads: number,
    { plan, onSpan }: Pick<BackendOptions, 'plan' | 'onSpan'>,
    read?: ReadFile,
  ) {
    this.#plan = plan;
    this.#onSpan = onSpan;
    this.#own = steps.filter(({ source }) => source.inFile);
    this.#common = steps.filter(({ source }) => !source.inFile);
    this.#parts = parts;
    this.#read = read;
    const areas = parts.map(({ index, map, memory }) => {
      const { bytes, area } = stagingOf(steps, index, threads);
      memory.reserve('the staging area', map.cache + bytes);
      return { address: map.cache, ...area };
    });
    const log = onSpan && slabLog(threads, this.#own.length);
    this.list = this.#own.length ? { tasks: this.#own.map(taskOf), areas, log } : undefined;
  }

  get bytes(): number {
    return [...this.#own, ...this.#common].reduce((sum, { slab }) => sum + slabBytes(slab), 0);
  }

  /** Loads everything, together with the threads of a pool that was started with `list`. @throws ModelError NotFinite, FormatError */
  async run(
    pool: Pool,
    { signal }: BackendOptions,
    onProgress: (weight: number, bytesRead: number) => void,
  ): Promise<Omit<LoadTimes, 'ms'>> {
    const times = { readMs: 0, quantizeMs: 0, packMs: 0, bytesRead: 0 };
    if (this.list) {
      const { tasks } = this.list;
      const words = viewSharedWords(pool);
      let reported = 0;
      const report = (): void => {
        // Slabs that a thread has taken count as loaded.
        const taken = Math.min(Atomics.load(words, sharedWords.nextSlab >> 2), tasks.length);
        for (; reported < taken; reported++) times.bytesRead += tasks[reported]!.bytes;
        onProgress(this.#own[reported - 1]!.slab.parts[0]!.weight, times.bytesRead);
      };
      while (this.#read && loadSlabs(this.list, { ...pool.loader, read: this.#read }, BURST)) {
        report();
        await nextTurn();
        signal?.throwIfAborted();
      }
      // If threads cannot read by descriptor, most slabs are left.
      for (let index = takeSlab(words); index < tasks.length; index = takeSlab(words)) {
        signal?.throwIfAborted();
        await this.#one(index, pool, times);
        report();
      }
      for (const index of await pool.loaded()) await this.#one(index, pool, times);
      report();
      this.#reportSlabs(pool);
      signal?.throwIfAborted();
      times.readMs += words[sharedWords.readTime >> 2]! / 1000;
      times.quantizeMs += words[sharedWords.quantizeTime >> 2]! / 1000;
      times.packMs += words[sharedWords.packTime >> 2]! / 1000;
    }
    for (const step of this.#common) {
      signal?.throwIfAborted();
      await this.#together(step, pool, times);
      onProgress(step.slab.parts[0]!.weight, (times.bytesRead += slabBytes(step.slab)));
    }
    return times;
  }

  /** Reads and packs one slab of the list on this thread. */
  async #one(index: number, pool: Pool, times: Times): Promise<void> {
    const { tasks, areas } = this.list!;
    const step = this.#own[index]!;
    const { memory } = this.#parts[step.memory]!;
    const area = areaOf(areas[step.memory]!, 0);
    const start = performance.now();
    await readSlab(step, area, memory, 1);
    const read = performance.now();
    if (!packSlab(tasks[index]!, areas, pool.loader)) throw slabError(step, memory.bytes(area, slabBytes(step.slab)));
    const end = performance.now();
    addTimes(times, step, read - start, end - read, 1);
    this.#report(step, 0, [start, read, end]);
  }

  /** @param times when reading began and ended, and packing ended */
  #report(step: LoadStep, thread: number, [start, read, end]: readonly [number, number, number], offset = 0): void {
    if (!this.#onSpan) return;
    const part = { thread, weight: this.#plan.weights[step.slab.parts[0]!.weight]!.name, bytes: slabBytes(step.slab) };
    const [reading, packing] = kindsOf(step);
    this.#onSpan({ ...part, name: reading, start: start + offset, end: read + offset });
    this.#onSpan({ ...part, name: packing, start: read + offset, end: end + offset });
  }

  /** Reports what threads loaded by themselves. */
  #reportSlabs({ times }: Pool): void {
    const { log } = this.list!;
    if (!log) return;
    for (const [thread, own] of times.entries()) {
      const offset = own[timeWords.origin]! - performance.timeOrigin;
      const noted = new Float64Array(log.buffer, 8 * log.stride * thread, log.stride);
      for (let n = 0; n < noted[0]!; n++) {
        const at = 1 + SLAB_WORDS * n;
        const [index, ...when] = noted.subarray(at, at + SLAB_WORDS) as unknown as [number, number, number, number];
        this.#report(this.#own[index]!, thread, when, offset);
      }
    }
  }

  /** Reads a slab that only this thread can read; all threads pack it. */
  async #together(step: LoadStep, pool: Pool, times: Times): Promise<void> {
    const { memory, map } = this.#parts[step.memory]!;
    const start = performance.now();
    await readSlab(step, map.cache, memory, READS);
    const read = performance.now();
    const bytes = slabBytes(step.slab);
    memory.bytes(map.cache + bytes, CHECK_LINE).fill(0);
    const tape = tapeOf(step, map.cache);
    const words = memory.i32(map.tape, tape.length);
    words.set(tape);
    await pool.run(step.memory, map.tape, (4 * tape.length) / RECORD_BYTES);
    if (words[FOUND]) throw slabError(step, memory.bytes(map.cache, bytes));
    const end = performance.now();
    addTimes(times, step, read - start, end - read, pool.threads);
    this.#report(step, 0, [start, read, end]);
  }
}

type Times = { -readonly [Key in 'readMs' | 'quantizeMs' | 'packMs' | 'bytesRead']: number };

/** What reading and packing a slab are called: either may quantize. */
const kindsOf = ({ source, quantizes }: LoadStep): ['read' | 'quantize', 'pack' | 'quantize'] => [
  source.quantizes ? 'quantize' : 'read',
  quantizes ? 'quantize' : 'pack',
];

function addTimes(times: Times, step: LoadStep, read: number, packed: number, threads: number): void {
  const [reading, packing] = kindsOf(step);
  times[`${reading}Ms`] += read;
  times[`${packing}Ms`] += packed * threads;
}

function slabLog(threads: number, slabs: number): SlabLog {
  const stride = 1 + SLAB_WORDS * slabs;
  const bytes = 8 * stride * threads;
  return { stride, buffer: threads > 1 ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes) };
}

function taskOf(step: LoadStep): SlabTask {
  const { descriptor, offset } = step.source.inFile!;
  return {
    memory: step.memory,
    ranges: step.slab.ranges.map(({ start, end }) => ({ descriptor, offset: offset + start, length: end - start })),
    bytes: slabBytes(step.slab),
    tape: tapeOf(step, 0),
    quantizes: step.quantizes,
  };
}

/** Error that names the value in the slab that a weight must not hold. */
function slabError({ source: { place, type, quantizes }, storage }: LoadStep, bytes: Uint8Array): ModelError {
  // Blocks quantized here consist of finite values: it was too large for the storage.
  return notFinite(place, quantizes ? new Float32Array() : dequantize(type, bytes.slice()), storage);
}

async function readSlab({ source, slab }: LoadStep, address: number, memory: Memory, reads: number): Promise<void> {
  const part = Math.ceil(slabBytes(slab) / reads / 4096) * 4096;
  const pending: Promise<void>[] = [];
  let to = address;
  for (const { start, end } of slab.ranges) {
    for (let at = start; at < end; at += part) {
      const count = Math.min(part, end - at);
      pending.push(source.readInto(at, memory.bytes(to, count)));
      to += count;
    }
  }
  await Promise.all(pending);
}
