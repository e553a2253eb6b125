/** The fast backend: a plan compiled to kernels and tapes, walked by all threads. */

import { LanewiseError, OutOfMemoryError } from '../../errors.ts';
import { control, timings } from '../../kernels/barrier.ts';
import { activationStride } from '../../kernels/layout.ts';
import { rowBytes, weightsOf } from '../../plan/memory.ts';
import { type RopeTable, ropeRow } from '../../plan/rope.ts';
import { type BufferId, type Plan, tableTokens } from '../../plan/step.ts';
import {
  type Backend,
  type BackendOptions,
  type Batch,
  type CachePages,
  cachePages,
  joinTensors,
  type LoadTimes,
  PAGE,
  type Results,
  type StepTime,
  sequenceLengths,
  type Timing,
} from '../backend.ts';
import { drawFrom } from '../draw.ts';
import { combineSummary } from '../summary.ts';
import { type Choice, formatKey, productFamily } from './choosing/choice.ts';
import { type LoadTarget, planLoad } from './loading/load-plan.ts';
import { Load, type PartMemory } from './loading/load-run.ts';
import { KernelSet } from './lowering/kernel-set.ts';
import { lower } from './lowering/lower.ts';
import { type MemoryMap, mapMemory } from './lowering/memory-map.ts';
import { type PlanPart, type Segment, splitWithCache } from './lowering/parts.ts';
import { align, MEMORY_LIMIT, Memory, SCRATCH_BYTES, WASM_PAGE } from './memory/memory.ts';
import { controlAddress } from './memory/shared-words.ts';
import { cachePageBytes, heldBytes } from './memory/sizes.ts';
import { Governor } from './threads/governor.ts';
import type { WasmHost } from './threads/host.ts';
import { Pool } from './threads/pool.ts';

/** Up to this many rows every thread computes norms and the like itself. */
const REPLICATE_ROWS = 3;

export interface BuildOptions extends BackendOptions {
  readonly host: WasmHost;
  readonly threads: number;
  readonly choice: Choice;
  /** Told of threads that did not start. */
  readonly onWarning?: (text: string) => void;
  /** Bytes of weights and cache per memory; default: what 32-bit addresses reach, less the rest. */
  readonly memoryBytes?: number;
  /** All threads for every forward, also where fewer are faster: for tests. */
  readonly allThreads?: boolean;
}

/** Of a memory's 4 GiB, what rows, scratch and staging may take. */
const ASIDE_BYTES = 512 * 1024 * 1024;

/** Records of one segment, as they lie in the tape of its part. */
interface SegmentTape extends Segment {
  readonly tape: number;
  /** Records, and for each clock setting the steps of the plan after which it is read. */
  readonly records: number;
  readonly marked: Readonly<Record<Exclude<Timing, 'off'>, readonly number[]>>;
}

/** Compiles the plan, starts the threads and loads the weights. */
export async function buildBackend(given: BuildOptions): Promise<WasmBackend> {
  const options = { ...given, tensor: joinTensors(given) };
  const { plan, host, threads, choice, onProgress, onWarning } = options;
  const kernels = new KernelSet();
  const pageBytes = plan.caches.reduce((sum, spec) => sum + cachePageBytes(spec), 0);
  const wanted = cachePages(options.cache, pageBytes);
  const { parts, segments, pages } = splitWithCache(
    plan,
    {
      capacity: options.memoryBytes ?? MEMORY_LIMIT - ASIDE_BYTES,
      weightBytes: (id) => align(heldBytes(plan.weights[id]!)),
      pageBytes: (id) => cachePageBytes(plan.caches[id]!),
    },
    wanted,
  );
  const targets = parts.map((part, index): LoadTarget => {
    const map = mapMemory({ ...options, part, quantizedBytes: quantizedBytes(options, part) });
    return { index, part, map };
  });
  const capacity = targets.reduce((least, { map }) => Math.min(least, roomFor(map)), pages);
  if (capacity < wanted.least)
    throw new OutOfMemoryError('the key/value cache', wanted.least * pageBytes, capacity * pageBytes);
  const tapes = segments.map(({ part, from, to }) =>
    lower({ plan: { ...plan, steps: plan.steps.slice(from, to) }, map: targets[part]!.map, choice, kernels }),
  );
  const steps = targets.flatMap((target) => planLoad(options, target, choice, kernels));
  const compiled = kernels.compile(host, choice.wide, { maximum: MEMORY_LIMIT / WASM_PAGE, shared: threads > 1 });
  const partMemories = targets.map(
    (target): PartMemory => ({ ...target, memory: new Memory(target.map.cache, threads > 1) }),
  );
  const marks: number[] = [];
  const load = new Load(steps, partMemories, threads, host.read);
  const memories = partMemories.map(({ memory }) => memory.wasm);
  const start = performance.now();
  const pool = await Pool.start(
    host,
    { ...compiled, memories, threads, cores: host.cores },
    (thread, memory) => partMemories[memory]!.map.scratch + thread * SCRATCH_BYTES,
    () => marks.push(performance.now()),
    load.list,
    onWarning,
  );
  try {
    const total = load.bytes;
    const times = await load.run(pool, options, (weight, bytes) => onProgress?.(plan.weights[weight]!, bytes, total));
    const loadTimes = { ...times, ms: performance.now() - start };
    const ends = partMemories.map(({ map }) => map.tape);
    const segmentTapes = segments.map((segment, index): SegmentTape => {
      const { words, stepOf, scopeEnds } = tapes[index]!;
      const steps = stepOf.map((step) => step + segment.from);
      const tape = ends[segment.part]!;
      partMemories[segment.part]!.memory.i32(tape, words.length).set(words);
      ends[segment.part]! += words.byteLength;
      const scopes = scopeEnds.map((record) => steps[record]!);
      return { ...segment, tape, records: stepOf.length, marked: { steps, scopes } };
    });
    return new WasmBackend({ options, partMemories, pool, segmentTapes, marks, loadTimes, capacity });
  } catch (error) {
    await pool.stop();
    throw error;
  }
}

/** Room for quantized rows per activation format: those of the widest product that uses it. */
function quantizedBytes({ plan, choice, maxRows, maxWanted }: BuildOptions, { steps }: PlanPart): Map<string, number> {
  const most = new Map<string, number>();
  for (const step of steps) {
    if (step.op !== 'matmul' && step.op !== 'experts') continue;
    const rows = plan.buffers[step.x]!.rows === 'wanted' ? maxWanted : maxRows;
    for (const id of weightsOf(step)) {
      const { shape, shares } = plan.weights[id]!;
      const { activation } = productFamily(plan.weights[shares ?? id]!.storage, choice);
      if (!activation || shape.length === 1) continue;
      const bytes = rows * activationStride(activation, shape[1]!);
      most.set(formatKey(activation), Math.max(bytes, most.get(formatKey(activation)) ?? 0));
    }
  }
  return most;
}

interface BackendParts {
  readonly options: BuildOptions;
  readonly partMemories: readonly PartMemory[];
  readonly pool: Pool;
  readonly segmentTapes: readonly SegmentTape[];
  readonly marks: number[];
  readonly loadTimes: LoadTimes;
  /** Cache pages that there is room for. */
  readonly capacity: number;
}

/** Pages that 32-bit addresses reach. */
const roomFor = ({ cache, pageStride }: MemoryMap): number =>
  pageStride === 0 ? Number.POSITIVE_INFINITY : Math.floor((MEMORY_LIMIT - cache) / pageStride);

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
  readonly #governor: Governor;
  readonly #partMemories: readonly PartMemory[];
  readonly #pool: Pool;
  readonly #tapes: readonly SegmentTape[];
  readonly #marks: number[];
  readonly #ropeRows: RopeRows[];
  #rows = { all: 0, wanted: 0 };

  constructor({ options, partMemories, pool, segmentTapes, marks, loadTimes, capacity }: BackendParts) {
    this.threads = pool.threads;
    this.maxRows = options.maxRows;
    this.maxWanted = options.maxWanted;
    this.choice = options.choice;
    this.vectorBits = options.choice.wide ? 256 : 128;
    this.loadTimes = loadTimes;
    this.#plan = options.plan;
    this.#allThreads = options.allThreads ?? false;
    this.#governor = new Governor(pool.threads, options.host.cores, undefined, options.host.coresCounted);
    this.#partMemories = partMemories;
    this.#pool = pool;
    this.#tapes = segmentTapes;
    this.#marks = marks;
    this.#ropeRows = options.plan.ropes.map((table) => new RopeRows(table));
    for (const { map, memory } of partMemories) {
      memory.i32(map.rowNumbers, map.maxRows).set(Array.from({ length: map.maxRows }, (_, row) => row));
    }
    this.cache = new WasmCachePages(partMemories, capacity);
  }

  memory(): { weights: number; activations: number; cache: number } {
    const weights = this.#plan.weights.reduce((sum, w) => sum + (w.shares === undefined ? heldBytes(w) : 0), 0);
    const sum = (bytes: (map: MemoryMap) => number): number =>
      this.#partMemories.reduce((s, { map }) => s + bytes(map), 0);
    return {
      weights,
      activations: sum(({ cache }) => cache) - weights,
      cache: this.cache.count * this.cache.pageBytes,
    };
  }

  async forward(batch: Batch): Promise<Results> {
    this.#checkBatch(batch);
    const { timing = 'off' } = batch;
    this.#rows = { all: batch.tokens.length, wanted: batch.wanted.length };
    for (const part of this.#partMemories) this.#writeBatch(batch, part);
    const times: StepTime[] = [];
    const threads = this.#allThreads ? this.threads : this.#governor.choose(batch.tokens.length);
    const begin = performance.now();
    for (const { part, tape, records, marked, copies } of this.#tapes) {
      for (const { buffer, part: from } of copies) this.#copyRows(buffer, from, part);
      const start = performance.now();
      this.#marks.length = 0;
      await this.#pool.run(part, tape, records, threads);
      if (timing !== 'off') addTimes(times, start, this.#marks, marked[timing]);
    }
    this.#governor.record(batch.tokens.length, threads, performance.now() - begin);
    return {
      times,
      output: (i) => this.#resultRow(this.#plan.output, i),
      summary: (i) => combineSummary(this.#resultRow(this.#plan.summary!, i)),
      draw: async (draws) =>
        Int32Array.from(draws, (draw) => drawFrom(this.#resultRow(this.#plan.output, draw.row), draw)),
      tap: (name) => this.#tap(name),
    };
  }

  /** Row i of a buffer that the plan's last segment wrote. */
  #resultRow(buffer: BufferId, i: number): Float32Array {
    const { map, memory } = this.#partMemories[this.#tapes.at(-1)!.part]!;
    const { width } = this.#plan.buffers[buffer]!;
    return memory.f32(map.buffers[buffer]! + i * rowBytes(width), width);
  }

  #tap(name: string): Float32Array {
    const index = this.#plan.steps.findIndex((candidate) => candidate.op === 'tap' && candidate.name === name);
    const step = this.#plan.steps[index];
    if (step?.op !== 'tap') throw new LanewiseError('UnknownTap', `the plan keeps no copy named ${name}`);
    const { width } = this.#plan.buffers[step.out]!;
    const rows = this.#rowViews(step.out, this.#tapes.find(({ to }) => index < to)!.part);
    const out = new Float32Array(rows.length * width);
    for (const [row, values] of rows.entries()) out.set(values, row * width);
    return out;
  }

  async dispose(): Promise<void> {
    await this.#pool.stop();
  }

  #checkBatch({ tokens, types, positions, sequences, pages, wanted }: Batch): void {
    const fail = (what: string): never => {
      throw new LanewiseError('InvalidBatch', what);
    };
    if (tokens.length === 0 || tokens.length > this.maxRows)
      fail(`a forward takes 1 to ${this.maxRows} rows, got ${tokens.length}`);
    if (wanted.length > this.maxWanted) fail(`at most ${this.maxWanted} rows of logits, got ${wanted.length}`);
    const { tableEntries } = this.cache;
    if (pages.reduce((sum, table) => sum + table.length, 0) > tableEntries)
      fail(`more than ${tableEntries} page table entries`);
    const rowsOf = (index: 'token' | 'position' | 'type'): number =>
      this.#plan.steps.reduce(
        (least, s) =>
          s.op === 'embed' && s.index === index ? Math.min(least, this.#plan.weights[s.table]!.shape[0]!) : least,
        Number.POSITIVE_INFINITY,
      );
    const [vocab, context, kinds] = [rowsOf('token'), rowsOf('position'), rowsOf('type')];
    for (let row = 0; row < tokens.length; row++) {
      if (!(tokens[row]! >= 0 && tokens[row]! < vocab))
        fail(`token id ${tokens[row]} of row ${row}: ids are 0 to ${vocab - 1}`);
      if (!(positions[row]! >= 0 && positions[row]! < context))
        fail(`position ${positions[row]} of row ${row} is beyond ${context}`);
      if (types && !(types[row]! >= 0 && types[row]! < kinds))
        fail(`token type ${types[row]} of row ${row}: types are 0 to ${kinds - 1}`);
      if (pages[sequences[row]!]?.[Math.floor(positions[row]! / PAGE)] === undefined)
        fail(`row ${row} has no cache page`);
    }
    if (pages.some((table) => table.some((page) => page < 0 || page >= this.cache.count)))
      fail(`a cache page beyond the ${this.cache.count} there are`);
    if (wanted.some((row) => row < 0 || row >= tokens.length)) fail('a wanted row that is not in the batch');
  }

  /** The rows that this forward has of a buffer, in one part's memory. */
  #rowViews(buffer: BufferId, part: number): Float32Array[] {
    const { map, memory } = this.#partMemories[part]!;
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
    settings[control.timing / 4] = timings[batch.timing ?? 'off'];
    memory.i32(map.tokens, count).set(tableTokens(this.#plan, tokens));
    if (types) memory.i32(map.types, count).set(types);
    else memory.i32(map.types, count).fill(0);
    memory.i32(map.positions, count).set(positions);
    memory.i32(map.sequences, count).set(sequences);
    memory.i32(map.wanted, wanted.length).set(wanted);
    let entry = map.tableEntries;
    for (const [sequence, table] of pages.entries()) {
      memory.i32(map.tables + sequence * 4, 1)[0] = entry;
      memory.i32(entry, table.length).set(table);
      entry += table.length * 4;
    }
    const lengths = sequenceLengths(batch);
    for (const [index, rows] of this.#ropeRows.entries()) {
      const { rotary } = this.#plan.ropes[index]!;
      const target = memory.f32(map.ropes[index]!, count * rotary);
      for (let row = 0; row < count; row++)
        target.set(rows.at(positions[row]!, lengths[sequences[row]!]!), row * rotary);
    }
  }
}

/** The cache pages of all memories: page p is at one number in each. */
class WasmCachePages implements CachePages {
  readonly pageBytes: number;
  readonly capacity: number;
  readonly tableEntries: number;
  count = 0;
  readonly #partMemories: readonly PartMemory[];

  constructor(partMemories: readonly PartMemory[], capacity: number) {
    this.#partMemories = partMemories;
    this.capacity = capacity;
    this.tableEntries = Math.min(...partMemories.map(({ map }) => map.tableCount));
    this.pageBytes = partMemories.reduce((sum, { map }) => sum + map.pageStride, 0);
    this.#ensure(1);
  }

  async ensure(count: number): Promise<void> {
    this.#ensure(count);
  }

  #ensure(count: number): void {
    if (count <= this.count) return;
    for (const { map, memory } of this.#partMemories) {
      const end = map.cache + count * map.pageStride;
      if (end > MEMORY_LIMIT)
        throw new OutOfMemoryError('the key/value cache', end - map.cache, MEMORY_LIMIT - map.cache);
      memory.reserve('the key/value cache', end);
    }
    this.count = count;
  }

  async copy(from: number, to: number): Promise<void> {
    for (const [n, source] of this.#views(from).entries()) this.#views(to)[n]!.set(source);
  }

  async read(page: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.pageBytes);
    let at = 0;
    for (const view of this.#views(page)) {
      bytes.set(view, at);
      at += view.length;
    }
    return bytes;
  }

  async write(page: number, bytes: Uint8Array): Promise<void> {
    let at = 0;
    for (const view of this.#views(page)) {
      view.set(bytes.subarray(at, at + view.length));
      at += view.length;
    }
  }

  /** The bytes of a page in each memory. */
  #views(page: number): Uint8Array[] {
    return this.#partMemories.map(({ map: { cache, pageStride }, memory }) =>
      memory.bytes(cache + page * pageStride, pageStride),
    );
  }
}

/** Times between marks, added up per step of the plan. */
function addTimes(times: StepTime[], start: number, marks: readonly number[], steps: readonly number[]): void {
  let before = start;
  for (const [index, step] of steps.entries()) {
    const ms = marks[index]! - before;
    before = marks[index]!;
    const last = times.at(-1);
    if (last?.step === step) times[times.length - 1] = { step, ms: last.ms + ms };
    else times.push({ step, ms });
  }
}

/** Cos and sin per position, computed once; positions of long sequences have others. */
class RopeRows {
  readonly #table: RopeTable;
  readonly #rows: { readonly short: Float32Array[]; readonly long: Float32Array[] } = { short: [], long: [] };

  constructor(table: RopeTable) {
    this.#table = table;
  }

  /** @param length tokens of the whole sequence */
  at(position: number, length: number): Float32Array {
    const { rotary, long } = this.#table;
    const rows = this.#rows[long && length > long.above ? 'long' : 'short'];
    const known = rows[position];
    if (known) return known;
    const row = new Float32Array(rotary);
    ropeRow(this.#table, position, length, row);
    rows[position] = row;
    return row;
  }
}
