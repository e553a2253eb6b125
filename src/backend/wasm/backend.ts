/** The fast backend: a plan compiled to kernels and a tape, walked by all threads. */
import { LanewiseError, OutOfMemoryError } from '../../errors.ts';
import { control } from '../../kernels/barrier.ts';
import { activationStride } from '../../kernels/layout.ts';
import { RECORD_BYTES } from '../../kernels/record.ts';
import { rowBytes } from '../../plan/memory.ts';
import { ropeRow } from '../../plan/rope.ts';
import type { Plan } from '../../plan/step.ts';
import { type Backend, type BackendOptions, type Batch, type LoadTimes, PAGE, type StepTime } from '../backend.ts';
import { type Choice, formatKey, productFamily } from './choice.ts';
import type { WasmHost } from './host.ts';
import { KernelSet } from './kernel-set.ts';
import { loadTapeBytes, planLoad, runLoad } from './loader.ts';
import { lower, type Tape } from './lower.ts';
import {
  heldBytes,
  MEMORY_LIMIT,
  Memory,
  type MemoryMap,
  mapMemory,
  SCRATCH_BYTES,
  TABLE_ENTRIES,
  WASM_PAGE,
} from './memory-map.ts';
import { Pool } from './pool.ts';
import { controlAddress } from './thread.ts';

/** Up to this many rows every thread computes norms and the like itself. */
const REPLICATE_ROWS = 3;
/** Turns of a barrier's loop: as long as waking a thread takes. */
const SPINS = 100_000;

export interface BuildOptions extends BackendOptions {
  readonly host: WasmHost;
  readonly threads: number;
  readonly choice: Choice;
}

/** Compiles the plan, starts the threads and loads the weights. */
export async function buildBackend(options: BuildOptions): Promise<WasmBackend> {
  const { plan, host, threads, choice, maxRows, maxWanted } = options;
  const kernels = new KernelSet();
  const tapeBytes = 2 * plan.steps.length * RECORD_BYTES + plan.weights.length * RECORD_BYTES;
  const map = mapMemory({ plan, maxRows, maxWanted, threads, tapeBytes, quantizedBytes: quantizedBytes(options) });
  const tape = lower({ plan, map, choice, kernels });
  const load = planLoad(options, map, choice, kernels);
  if (Math.max(tape.words.byteLength, loadTapeBytes(load)) > tapeBytes)
    throw new RangeError('the tape exceeds its room');
  const memory = new Memory(map.cache, threads > 1);
  const shared = { maximum: MEMORY_LIMIT / WASM_PAGE, shared: threads > 1 };
  const compiled = kernels.compile(host, choice.wide, shared);
  const marks: number[] = [];
  // A spinning thread without a core of its own keeps the one it waits for off the core.
  const spins = threads > host.cores ? 0 : SPINS;
  const scratchOf = (thread: number): number => map.scratch + thread * SCRATCH_BYTES;
  const pool = await Pool.start(host, { ...compiled, memory: memory.wasm, threads, spins }, scratchOf, (step) => {
    marks[step] = performance.now();
  });
  try {
    const loadTimes = await runLoad(load, options, map, memory, pool);
    return new WasmBackend({ options, map, memory, pool, tape, marks, loadTimes });
  } catch (error) {
    await pool.stop();
    throw error;
  }
}

/** Room for quantized rows per activation format: those of the widest product that uses it. */
function quantizedBytes({ plan, choice, maxRows, maxWanted }: BuildOptions): Map<string, number> {
  const most = new Map<string, number>();
  for (const step of plan.steps) {
    if (step.op !== 'matmul') continue;
    const weight = plan.weights[step.weight]!;
    const held = weight.shares === undefined ? weight : plan.weights[weight.shares]!;
    const { activation } = productFamily(held.storage, choice);
    if (!activation) continue;
    const rows = plan.buffers[step.x]!.rows === 'wanted' ? maxWanted : maxRows;
    const bytes = rows * activationStride(activation, plan.buffers[step.x]!.width);
    most.set(formatKey(activation), Math.max(bytes, most.get(formatKey(activation)) ?? 0));
  }
  return most;
}

interface Parts {
  readonly options: BuildOptions;
  readonly map: MemoryMap;
  readonly memory: Memory;
  readonly pool: Pool;
  readonly tape: Tape;
  readonly marks: number[];
  readonly loadTimes: LoadTimes;
}

export class WasmBackend implements Backend {
  readonly name = 'wasm';
  readonly threads: number;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly loadTimes: LoadTimes;
  readonly choice: Choice;
  timing = false;
  readonly #plan: Plan;
  readonly #map: MemoryMap;
  readonly #memory: Memory;
  readonly #pool: Pool;
  readonly #tape: Tape;
  readonly #marks: number[];
  readonly #ropeRows: RopeRows[];
  #pages = 0;
  #rows = { all: 0, wanted: 0 };
  #times: StepTime[] = [];

  constructor({ options, map, memory, pool, tape, marks, loadTimes }: Parts) {
    this.threads = options.threads;
    this.maxRows = options.maxRows;
    this.maxWanted = options.maxWanted;
    this.choice = options.choice;
    this.loadTimes = loadTimes;
    this.#plan = options.plan;
    this.#map = map;
    this.#memory = memory;
    this.#pool = pool;
    this.#tape = tape;
    this.#marks = marks;
    this.#ropeRows = options.plan.ropes.map(
      (table) => new RopeRows(table.rotary, (at, out) => ropeRow(table, at, out)),
    );
    memory.i32(map.tape, tape.words.length).set(tape.words);
    memory.i32(map.rowNumbers, map.maxRows).set(Array.from({ length: map.maxRows }, (_, row) => row));
    this.ensurePages(1);
  }

  memory(): { weights: number; activations: number; cache: number } {
    const weights = this.#plan.weights.reduce((sum, w) => sum + (w.shares === undefined ? heldBytes(w) : 0), 0);
    return { weights, activations: this.#map.cache - weights, cache: this.#pages * this.#map.pageStride };
  }

  ensurePages(count: number): void {
    if (count <= this.#pages) return;
    const end = this.#map.cache + count * this.#map.pageStride;
    if (end > MEMORY_LIMIT)
      throw new OutOfMemoryError('the key/value cache', end - this.#map.cache, MEMORY_LIMIT - this.#map.cache);
    this.#memory.reserve('the key/value cache', end);
    this.#pages = count;
  }

  async forward(batch: Batch): Promise<void> {
    this.#checkBatch(batch);
    this.#writeBatch(batch);
    const settings = this.#memory.i32(controlAddress, control.bytes / 4);
    settings[control.rows / 4] = batch.tokens.length;
    settings[control.wanted / 4] = batch.wanted.length;
    settings[control.replicateLimit / 4] = this.threads > 1 ? REPLICATE_ROWS : 0;
    settings[control.timing / 4] = this.timing ? 1 : 0;
    this.#rows = { all: batch.tokens.length, wanted: batch.wanted.length };
    const start = performance.now();
    await this.#pool.run(this.#map.tape, this.#tape.stepOf.length);
    if (this.timing) this.#times = this.#collectTimes(start);
  }

  logits(i: number): Float32Array {
    return this.#memory.f32(this.#map.buffers[this.#plan.logits]! + i * rowBytes(this.#plan.vocab), this.#plan.vocab);
  }

  tap(name: string): Float32Array {
    const step = this.#plan.steps.find((candidate) => candidate.op === 'tap' && candidate.name === name);
    if (step?.op !== 'tap') throw new LanewiseError('UnknownTap', `the plan keeps no copy named ${name}`);
    const { width, rows } = this.#plan.buffers[step.out]!;
    const count = this.#rows[rows];
    const out = new Float32Array(count * width);
    for (let row = 0; row < count; row++) {
      out.set(this.#memory.f32(this.#map.buffers[step.out]! + row * rowBytes(width), width), row * width);
    }
    return out;
  }

  stepTimes(): readonly StepTime[] {
    return this.#times;
  }

  async dispose(): Promise<void> {
    await this.#pool.stop();
  }

  #checkBatch({ tokens, positions, sequences, pages, wanted }: Batch): void {
    const fail = (what: string): never => {
      throw new LanewiseError('InvalidBatch', what);
    };
    if (tokens.length === 0 || tokens.length > this.maxRows)
      fail(`a forward takes 1 to ${this.maxRows} rows, got ${tokens.length}`);
    if (wanted.length > this.maxWanted) fail(`at most ${this.maxWanted} rows of logits, got ${wanted.length}`);
    if (pages.reduce((sum, table) => sum + table.length, 0) > TABLE_ENTRIES)
      fail(`more than ${TABLE_ENTRIES} page table entries`);
    const rowsOf = (index: 'token' | 'position'): number =>
      this.#plan.steps.reduce(
        (least, s) =>
          s.op === 'embed' && s.index === index ? Math.min(least, this.#plan.weights[s.table]!.shape[0]!) : least,
        Number.POSITIVE_INFINITY,
      );
    const [vocab, context] = [rowsOf('token'), rowsOf('position')];
    for (let row = 0; row < tokens.length; row++) {
      if (!(tokens[row]! >= 0 && tokens[row]! < vocab))
        fail(`token id ${tokens[row]} of row ${row}: ids are 0 to ${vocab - 1}`);
      if (!(positions[row]! >= 0 && positions[row]! < context))
        fail(`position ${positions[row]} of row ${row} is beyond ${context}`);
      if (pages[sequences[row]!]?.[Math.floor(positions[row]! / PAGE)] === undefined)
        fail(`row ${row} has no cache page`);
    }
    if (pages.some((table) => table.some((page) => page < 0 || page >= this.#pages)))
      fail(`a cache page beyond the ${this.#pages} there are`);
    if (wanted.some((row) => row < 0 || row >= tokens.length)) fail('a wanted row that is not in the batch');
  }

  #writeBatch({ tokens, positions, sequences, pages, wanted }: Batch): void {
    const map = this.#map;
    const count = tokens.length;
    this.#memory.i32(map.tokens, count).set(tokens);
    this.#memory.i32(map.positions, count).set(positions);
    this.#memory.i32(map.sequences, count).set(sequences);
    this.#memory.i32(map.wanted, wanted.length).set(wanted);
    let entry = map.tableEntries;
    for (const [sequence, table] of pages.entries()) {
      this.#memory.i32(map.tables + sequence * 4, 1)[0] = entry;
      this.#memory.i32(entry, table.length).set(table);
      entry += table.length * 4;
    }
    for (const [index, rows] of this.#ropeRows.entries()) {
      const { rotary } = this.#plan.ropes[index]!;
      const target = this.#memory.f32(map.ropes[index]!, count * rotary);
      for (let row = 0; row < count; row++) target.set(rows.at(positions[row]!), row * rotary);
    }
  }

  /** Times between marks, added up per step of the plan. */
  #collectTimes(start: number): StepTime[] {
    const times: StepTime[] = [];
    let before = start;
    for (const [record, step] of this.#tape.stepOf.entries()) {
      const ms = this.#marks[record]! - before;
      before = this.#marks[record]!;
      const last = times.at(-1);
      if (last?.step === step) times[times.length - 1] = { step, ms: last.ms + ms };
      else times.push({ step, ms });
    }
    return times;
  }
}

/** Cos and sin per position, computed once. */
class RopeRows {
  readonly #rotary: number;
  readonly #compute: (position: number, out: Float32Array) => void;
  readonly #rows: (Float32Array | undefined)[] = [];

  constructor(rotary: number, compute: (position: number, out: Float32Array) => void) {
    this.#rotary = rotary;
    this.#compute = compute;
  }

  at(position: number): Float32Array {
    const known = this.#rows[position];
    if (known) return known;
    const row = new Float32Array(this.#rotary);
    this.#compute(position, row);
    this.#rows[position] = row;
    return row;
  }
}
