/** The fast backend: a plan compiled to kernels and tapes, run by all threads. */

import { LanewiseError } from '../../errors.ts';
import { control, timings } from '../../kernels/barrier.ts';
import { RECORD_BYTES } from '../../kernels/record.ts';
import { markSlots } from '../../kernels/walker.ts';
import { rowBytes } from '../../plan/memory.ts';
import { type BufferId, type Plan, tableTokens } from '../../plan/step.ts';
import {
  type Backend,
  type Batch,
  type Draw,
  type LoadTimes,
  type Results,
  type StepTime,
  sequenceLengths,
  type ThreadTimes,
  type Timing,
  type WalkRecord,
} from '../backend.ts';
import { checkBatch } from '../check-batch.ts';
import type { Explanation } from '../explanation.ts';
import { joinTensors } from '../join-tensors.ts';
import { combineSummary } from '../summary.ts';
import { WasmCachePages } from './cache-pages.ts';
import type { Choice } from './choosing/choice.ts';
import { Drawer, type DrawKernels, drawKernels } from './drawer.ts';
import { type MemoryUse, memoryUse } from './footprint.ts';
import { Load, type PartMemory } from './loading/load-run.ts';
import { type LowerPlanOptions, lowerPlan } from './lower-plan.ts';
import type { Segment } from './lowering/parts.ts';
import { Memory, memoryLimits, SCRATCH_BYTES } from './memory/memory.ts';
import { controlAddress } from './memory/shared-words.ts';
import { RopeRows } from './rope-rows.ts';
import { Governor } from './threads/governor.ts';
import type { WasmHost } from './threads/host.ts';
import { Pool } from './threads/pool.ts';
import { timeWords } from './threads/thread-setup.ts';

/** Logits of a row from which all threads take part in a draw. */
const SHARED_DRAW = 16384;

/** Up to this many rows, every thread computes replicable steps in full. */
const REPLICATE_ROWS = 3;

export interface BuildOptions extends LowerPlanOptions {
  readonly host: WasmHost;
  /** Receives a warning if threads do not start. */
  readonly onWarning?: (text: string) => void;
  /** Decisions made before the backend is built. */
  readonly decided?: readonly Explanation[];
  /** Uses all threads for every forward, even if fewer are faster: for tests and measurements. */
  readonly allThreads?: boolean;
}

/** Records of one segment, as they lie in the tape of its part. */
interface SegmentTape extends Segment {
  readonly tape: number;
  /** Number of records, and for each timing setting those after which thread 0 reads the clock. */
  readonly records: number;
  readonly marked: Readonly<Record<Exclude<Timing, 'off'>, readonly MarkedRecord[]>>;
  readonly walked: readonly WalkRecord[];
}

interface MarkedRecord {
  readonly record: number;
  /** Index into the plan's steps. */
  readonly step: number;
}

/** Compiles the plan, starts the threads and loads the weights. */
export async function buildBackend(given: BuildOptions): Promise<WasmBackend> {
  const options = { ...given, tensor: joinTensors(given) };
  const { plan, host, threads, choice, onProgress, onWarning, onSpan } = options;
  const phase = phasesFor(onSpan);
  const { targets, segments, tapes, loadSteps, kernels, capacity } = lowerPlan(options);
  const draws = plan.summary === undefined ? undefined : drawKernels(kernels);
  phase('lower the plan');
  const shared = threads > 1;
  const compiled = kernels.compile(host, choice.wide, memoryLimits(shared));
  const partMemories = targets.map(
    (target): PartMemory => ({ ...target, memory: new Memory(target.map.cache, shared) }),
  );
  phase('compile kernels');
  const load = new Load(loadSteps, partMemories, threads, options, host.read);
  const records = [...tapes.map(({ stepOf }) => stepOf.length), ...loadSteps.map(({ packs }) => packs.length + 1)];
  const memories = partMemories.map(({ memory }) => memory.wasm);
  const scratch = partMemories.map(({ map }) => map.scratch);
  const start = performance.now();
  const pool = await Pool.start(
    host,
    { ...compiled, memories, threads, cores: host.cores },
    (thread, memory) => scratch[memory]! + thread * SCRATCH_BYTES,
    Math.max(...records),
    load.list,
    onWarning,
  );
  phase('start threads');
  try {
    const total = load.bytes;
    const times = await load.run(pool, options, (weight, bytes) => onProgress?.(plan.weights[weight]!, bytes, total));
    const loadTimes = { ...times, ms: performance.now() - start };
    phase('read and pack weights');
    const ends = partMemories.map(({ map }) => map.tape);
    const segmentTapes = segments.map((segment, index): SegmentTape => {
      const { words, stepOf, scopeEnds } = tapes[index]!;
      const steps = stepOf.map((step) => step + segment.from);
      const tape = ends[segment.part]!;
      partMemories[segment.part]!.memory.i32(tape, words.length).set(words);
      ends[segment.part]! += words.byteLength;
      const marked = steps.map((step, record) => ({ record, step }));
      const scopes = scopeEnds.map((record) => marked[record]!);
      const walked = steps.map((step, record) => ({
        step,
        kernel: kernels.family(words[(record * RECORD_BYTES) / 4]!),
      }));
      return { ...segment, tape, records: stepOf.length, marked: { steps: marked, scopes }, walked };
    });
    return new WasmBackend({ options, partMemories, pool, segmentTapes, draws, loadTimes, capacity });
  } catch (error) {
    await pool.stop();
    throw error;
  }
}

/** Reports phases that follow each other, each when it has ended. */
function phasesFor(onSpan: BuildOptions['onSpan']): (name: string) => void {
  let start = performance.now();
  return (name) => {
    const end = performance.now();
    onSpan?.({ name, start, end });
    start = end;
  };
}

interface BackendParts {
  readonly options: BuildOptions;
  readonly partMemories: readonly PartMemory[];
  readonly pool: Pool;
  readonly segmentTapes: readonly SegmentTape[];
  /** Undefined of encoders. */
  readonly draws: DrawKernels | undefined;
  readonly loadTimes: LoadTimes;
  /** Cache pages that there is room for. */
  readonly capacity: number;
}

/** References that are dropped on dispose. */
interface Held extends Pick<BackendParts, 'partMemories' | 'pool' | 'segmentTapes'> {
  readonly ropeRows: readonly RopeRows[];
  readonly drawer: Drawer | undefined;
}

export class WasmBackend implements Backend {
  readonly name = 'wasm';
  readonly threads: number;
  readonly vectorBits: 128 | 256;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly loadTimes: LoadTimes;
  readonly choice: Choice;
  readonly cache: WasmCachePages;
  readonly #plan: Plan;
  readonly #allThreads: boolean;
  readonly #decided: readonly Explanation[];
  /** Threads that were to start. */
  readonly #wanted: number;
  readonly #governor: Governor;
  #held: Held | undefined;
  #rows = { all: 0, wanted: 0 };
  /** Threads of the last forward. */
  #lastThreads = 1;
  /** `onWalk` of the batch whose results are drawn from. */
  #onDraw: Batch['onWalk'];

  constructor({ options, partMemories, pool, segmentTapes, draws, loadTimes, capacity }: BackendParts) {
    this.threads = pool.threads;
    this.maxRows = options.maxRows;
    this.maxWanted = options.maxWanted;
    this.choice = options.choice;
    this.vectorBits = options.choice.wide ? 256 : 128;
    this.loadTimes = loadTimes;
    this.#plan = options.plan;
    this.#allThreads = options.allThreads ?? false;
    this.#decided = options.decided ?? [];
    this.#wanted = options.threads;
    this.#governor = new Governor(pool.threads, options.host.cores, undefined, options.host.coresCounted);
    const ropeRows = options.plan.ropes.map((table) => new RopeRows(table));
    const drawer = draws && this.#newDrawer(draws, options.threads, { partMemories, pool, segmentTapes });
    this.#held = { partMemories, pool, segmentTapes, ropeRows, drawer };
    for (const { map, memory } of partMemories) {
      memory.i32(map.rowNumbers, map.maxRows).set(Array.from({ length: map.maxRows }, (_, row) => row));
    }
    this.cache = new WasmCachePages(options.plan, partMemories, capacity);
  }

  explain(): Explanation[] {
    const memories = this.#held?.partMemories.length ?? 0;
    const missing = this.#wanted - this.threads;
    const shared = this.#wanted > 1;
    return [
      { key: 'backend.name', value: this.name, from: 'default', why: 'kernels in WebAssembly, emitted for this plan' },
      ...this.#decided,
      {
        key: 'threads.count',
        value: this.threads,
        from: missing > 0 ? 'machine' : 'threads.wanted',
        ...(missing > 0 && { why: `${missing} of ${this.#wanted} did not start` }),
      },
      {
        key: 'memories.count',
        value: memories,
        from: 'model',
        why: `each of at most 4 GiB (32-bit addresses), ${shared ? 'shared among threads' : 'of one thread'}`,
      },
    ];
  }

  memory(): MemoryUse {
    if (!this.#held) return { weights: 0, activations: 0, cache: 0 };
    const maps = this.#held.partMemories.map(({ map }) => map);
    return memoryUse(this.#plan, maps, this.cache.count);
  }

  async forward(batch: Batch): Promise<Results> {
    const { pool, partMemories, segmentTapes } = this.#alive();
    const { maxRows, maxWanted, cache } = this;
    checkBatch(batch, {
      plan: this.#plan,
      maxRows,
      maxWanted,
      pageCount: cache.count,
      maxTableEntries: cache.tableEntries,
      cellsPerPage: cache.cells,
    });
    const { timing = 'off', onWalk } = batch;
    this.#rows = { all: batch.tokens.length, wanted: batch.wanted.length };
    // Replaces lost threads before the batch changes memory that a late thread could read.
    await pool.ready();
    for (const part of partMemories) this.#writeBatch(batch, part);
    const times: StepTime[] = [];
    const threads = this.#allThreads ? this.threads : this.#governor.choose(batch.tokens.length);
    this.#lastThreads = threads;
    const begin = performance.now();
    for (const { part, tape, records, marked, walked, copies } of segmentTapes) {
      for (const { buffer, part: from } of copies) this.#copyRows(buffer, from, part);
      const start = performance.now();
      await pool.run(part, tape, records, threads);
      const [first] = pool.times;
      if (timing !== 'off') addTimes(times, start, first!, marked[timing]);
      onWalk?.({ records: walked, threads: threadTimes(pool, threads, records) });
    }
    this.#governor.record(batch.tokens.length, threads, performance.now() - begin);
    return {
      times,
      output: (i) => this.#resultRow(this.#plan.output, i),
      summary: (i) => combineSummary(this.#resultRow(this.#plan.summary!, i)),
      draw: (draws) => this.#draw(draws, onWalk),
      tap: (name) => this.#tap(name),
    };
  }

  #alive(): Held {
    if (!this.#held) throw new LanewiseError('Disposed', 'the backend has been disposed');
    return this.#held;
  }

  /** Row i of a buffer that the plan's last segment wrote. */
  #resultRow(buffer: BufferId, i: number): Float32Array {
    const { partMemories, segmentTapes } = this.#alive();
    const { memory } = partMemories[segmentTapes.at(-1)!.part]!;
    return memory.f32(this.#resultAt(buffer, i), this.#plan.buffers[buffer]!.width);
  }

  /** The address of that row. */
  #resultAt(buffer: BufferId, i: number): number {
    const { partMemories, segmentTapes } = this.#alive();
    const { map } = partMemories[segmentTapes.at(-1)!.part]!;
    return map.buffers[buffer]! + i * rowBytes(this.#plan.buffers[buffer]!.width);
  }

  #newDrawer(
    kernels: DrawKernels,
    threads: number,
    { partMemories, pool, segmentTapes }: Pick<BackendParts, 'partMemories' | 'pool' | 'segmentTapes'>,
  ): Drawer {
    const { part } = segmentTapes.at(-1)!;
    const { map, memory } = partMemories[part]!;
    const { width } = this.#plan.buffers[this.#plan.output]!;
    // Waking other threads for short rows takes longer than drawing.
    const walk = async (tape: number): Promise<void> => {
      const threads = width < SHARED_DRAW ? 1 : this.#lastThreads;
      await pool.run(part, tape, 1, threads);
      this.#onDraw?.({ records: drawRecords, threads: threadTimes(pool, threads, 1) });
    };
    return new Drawer({ memory, map: map.draw!, kernels, width, threads, walk });
  }

  async #draw(draws: readonly Draw[], onWalk: Batch['onWalk']): Promise<Int32Array> {
    const { drawer } = this.#alive();
    this.#onDraw = onWalk;
    const { output, summary } = this.#plan;
    const ids = new Int32Array(draws.length);
    // One after the other: each uses the areas of all threads.
    for (const [i, draw] of draws.entries()) {
      const chunks = this.#resultRow(summary!, draw.row);
      ids[i] = await drawer!.draw(this.#resultAt(output, draw.row), chunks, draw);
    }
    return ids;
  }

  #tap(name: string): Float32Array {
    const index = this.#plan.steps.findIndex((candidate) => candidate.op === 'tap' && candidate.name === name);
    const step = this.#plan.steps[index];
    if (step?.op !== 'tap') throw new LanewiseError('UnknownTap', `the plan keeps no copy named ${name}`);
    const { width } = this.#plan.buffers[step.out]!;
    const rows = this.#rowViews(step.out, this.#alive().segmentTapes.find(({ to }) => index < to)!.part);
    const out = new Float32Array(rows.length * width);
    for (const [row, values] of rows.entries()) out.set(values, row * width);
    return out;
  }

  /** Ends the threads and drops all references to memories, so that they are freed even if this object stays referenced. */
  async dispose(): Promise<void> {
    const held = this.#held;
    this.#held = undefined;
    this.cache.dispose();
    await held?.pool.stop();
  }

  /** The rows that this forward has of a buffer, in one part's memory. */
  #rowViews(buffer: BufferId, part: number): Float32Array[] {
    const { map, memory } = this.#alive().partMemories[part]!;
    const { width, rows } = this.#plan.buffers[buffer]!;
    const start = map.buffers[buffer]!;
    return Array.from({ length: this.#rows[rows] }, (_, row) => memory.f32(start + row * rowBytes(width), width));
  }

  #copyRows(buffer: BufferId, from: number, to: number): void {
    const sources = this.#rowViews(buffer, from);
    for (const [row, target] of this.#rowViews(buffer, to).entries()) target.set(sources[row]!);
  }

  #writeBatch(batch: Batch, { map, memory }: PartMemory): void {
    const { tokens, types, positions, sequences, pages, wanted } = batch;
    const count = tokens.length;
    const settings = memory.i32(controlAddress, control.bytes / 4);
    settings[control.rows / 4] = count;
    settings[control.wanted / 4] = wanted.length;
    settings[control.replicateLimit / 4] = this.threads > 1 ? REPLICATE_ROWS : 0;
    settings[control.timing / 4] = timings[batch.onWalk ? 'threads' : (batch.timing ?? 'off')];
    memory.i32(map.tokens, count).set(tableTokens(this.#plan, tokens));
    if (types) memory.i32(map.types, count).set(types);
    else memory.i32(map.types, count).fill(0);
    memory.i32(map.positions, count).set(positions);
    memory.i32(map.sequences, count).set(sequences);
    memory.i32(map.wanted, wanted.length).set(wanted);
    writeTables(memory, map.tables, map.tableEntries, pages);
    const cells = batch.cells ?? pages.map((table) => table.map((page) => page * this.cache.cells));
    if (map.cellTables !== map.tables) writeTables(memory, map.cellTables, map.cellEntries, cells);
    const lengths = sequenceLengths(batch);
    for (const [index, rows] of this.#alive().ropeRows.entries()) {
      const { rotary } = this.#plan.ropes[index]!;
      const target = memory.f32(map.ropes[index]!, count * rotary);
      for (let row = 0; row < count; row++)
        target.set(rows.at(positions[row]!, lengths[sequences[row]!]!), row * rotary);
    }
  }
}

/** @param tables address of the addresses of tables, of which the first begins at `entries` */
function writeTables(memory: Memory, tables: number, entries: number, given: readonly Int32Array[]): void {
  let entry = entries;
  for (const [sequence, table] of given.entries()) {
    memory.i32(tables + sequence * 4, 1)[0] = entry;
    memory.i32(entry, table.length).set(table);
    entry += table.length * 4;
  }
}

const drawRecords: readonly WalkRecord[] = [{ step: undefined, kernel: 'draw' }];

/** The times of the threads that took part in the last walk, of so many records. */
function threadTimes(pool: Pool, threads: number, records: number): ThreadTimes[] {
  const mark = (times: Float64Array, slot: number): number => times[timeWords.marks + slot]!;
  const end = mark(pool.times[0]!, markSlots.ended(records - 1));
  return pool.times.slice(0, threads).map((times): ThreadTimes => {
    const offset = times[timeWords.origin]! - performance.timeOrigin;
    const arrived = (record: number): number => mark(times, markSlots.arrived(record));
    return {
      offset,
      start: times[timeWords.start]!,
      arrived,
      // All threads leave the last barrier together, but another thread may not have read the clock yet.
      ended: (record) =>
        record === records - 1 && times !== pool.times[0]
          ? Math.max(arrived(record), end - offset)
          : mark(times, markSlots.ended(record)),
    };
  });
}

/** Times of thread 0 between marks, added up per step of the plan. */
function addTimes(times: StepTime[], start: number, marks: Float64Array, marked: readonly MarkedRecord[]): void {
  let before = start;
  for (const { record, step } of marked) {
    const end = marks[timeWords.marks + markSlots.ended(record)]!;
    const ms = end - before;
    before = end;
    const last = times.at(-1);
    if (last?.step === step) times[times.length - 1] = { step, ms: last.ms + ms };
    else times.push({ step, ms });
  }
}
