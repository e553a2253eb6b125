/**
 * Layout of one WebAssembly memory:
 *
 *   shared words and control | batch arrays | page tables | tape | rope rows | scratch per thread | row buffers | weights | cache pages
 *
 * The cache comes last, because the memory grows at its end. During loading, the staging area is there instead.
 */
import { PAGE } from '../../../kernels/kv.ts';
import { RECORD_BYTES } from '../../../kernels/record.ts';
import { layoutBuffers } from '../../../plan/memory.ts';
import type { Plan, Step } from '../../../plan/step.ts';
import { Allocator, align, FIRST_REGION, SCRATCH_BYTES } from '../memory/memory.ts';
import { cachePageBytes, heldBytes } from '../memory/sizes.ts';
import { type DrawMap, mapDraw } from './draw-map.ts';
import type { PlanPart } from './parts.ts';

/** Page table entries of one forward, over all its sequences; more if a single sequence can need them. */
const TABLE_ENTRIES = 65536;
export interface MemoryMap {
  readonly maxRows: number;
  readonly maxWanted: number;
  /** i32 per row. */
  readonly tokens: number;
  readonly types: number;
  readonly positions: number;
  readonly sequences: number;
  /** 0, 1, 2 ...: index of each row in the rope rows. */
  readonly rowNumbers: number;
  /** i32 per wanted row. */
  readonly wanted: number;
  /** Addresses of the page tables, one per sequence, and the entries themselves. */
  readonly tables: number;
  readonly tableEntries: number;
  /** Number of page table entries. */
  readonly tableCount: number;
  /** The same for cell tables (see CachePages.cells); the page tables themselves if a page has one cell. */
  readonly cellTables: number;
  readonly cellEntries: number;
  readonly tape: number;
  /** Cos and sin of each row's position, per rope table. */
  readonly ropes: readonly number[];
  readonly scratch: number;
  /** i32 per expert: its number of rows. Then, maxRows for each expert, i32 numbers of these rows and f32 shares. */
  readonly experts: { readonly counts: number; readonly lists: number; readonly shares: number };
  /** Row buffers of the plan. */
  readonly buffers: readonly number[];
  /**
   * Quantized rows per activation format. Separate areas for row-wise and column-wise writers, so that one can be written
   * while the other is read.
   */
  readonly quantized: ReadonlyMap<string, number>;
  /** Address of each weight. A weight that shares another's storage has the same address. 0 for weights of other parts. */
  readonly weights: readonly number[];
  /** For draws from logits; undefined where other parts, or none, compute them. */
  readonly draw: DrawMap | undefined;
  /**
   * Cache pages: page p of cache c is at `cache + offset[c] + p * pageStride`, cell n of a cache without a window at
   * `cache + offset[c] + n * cellStride`.
   */
  readonly cache: number;
  readonly cacheOffsets: readonly number[];
  readonly pageStride: number;
  readonly cellStride: number;
  /** Number of cells of a page; see CachePages. */
  readonly cells: number;
}

export interface MapOptions {
  readonly plan: Plan;
  readonly part: PlanPart;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly threads: number;
  /** Bytes of quantized rows per activation format. */
  readonly quantizedBytes: ReadonlyMap<string, number>;
  readonly cache?: { readonly contextLength: number };
  /** Of a page; see CachePages. Default 1. */
  readonly cells?: number;
}

/** @throws OutOfMemoryError when the weights do not fit 32-bit addresses */
export function mapMemory({
  plan,
  part,
  maxRows,
  maxWanted,
  threads,
  quantizedBytes,
  cache,
  cells = 1,
}: MapOptions): MemoryMap {
  // Packing a slab takes at most one record per weight, and one for the check.
  const records = part.steps.reduce((sum, step) => sum + mostRecords(step), part.weights.size + 1);
  const tapeBytes = records * RECORD_BYTES;
  const experts = part.steps.reduce((most, step) => Math.max(most, step.op === 'experts' ? step.gate.length : 0), 0);
  const tableCount = Math.max(TABLE_ENTRIES, Math.ceil((cache?.contextLength ?? 0) / PAGE));
  const room = new Allocator(FIRST_REGION);
  const perRow = (what: string): number => room.take(what, maxRows * 4);
  const tables = (): { tables: number; tableEntries: number } => ({
    tables: perRow('page tables'),
    tableEntries: room.take('page tables', tableCount * 4),
  });
  const pageTables = tables();
  const cellTables = cells > 1 ? tables() : pageTables;
  const head = {
    maxRows,
    maxWanted,
    tokens: perRow('tokens'),
    types: perRow('token types'),
    positions: perRow('positions'),
    sequences: perRow('sequences'),
    rowNumbers: perRow('row numbers'),
    wanted: room.take('wanted rows', maxWanted * 4),
    tableCount,
    ...pageTables,
    tape: room.take('the tape', tapeBytes),
    ropes: plan.ropes.map(({ rotary }) => room.take('rope rows', maxRows * rotary * 4)),
    scratch: room.take('scratch', threads * SCRATCH_BYTES),
    experts: {
      counts: room.take('expert counts', experts * 4),
      lists: room.take('expert rows', experts * maxRows * 4),
      shares: room.take('expert shares', experts * maxRows * 4),
    },
  };
  const layout = layoutBuffers({ ...plan, steps: part.steps }, maxRows, maxWanted, part.crossing);
  const rows = room.take('row buffers', layout.byteLength);
  const quantized = new Map(
    [...quantizedBytes].flatMap(([key, bytes]) =>
      ['rows', 'columns'].map((divided) => [`${key} ${divided}`, room.take('quantized rows', bytes)] as const),
    ),
  );
  const drawn = plan.summary !== undefined && part.steps.some((step) => 'out' in step && step.out === plan.output);
  const draw = drawn
    ? mapDraw((what, bytes) => room.take(what, bytes), plan.buffers[plan.output]!.width, threads)
    : undefined;
  const weights: number[] = [];
  for (const [id, weight] of plan.weights.entries()) {
    const address = part.weights.has(id) ? room.take(weight.name, heldBytes(weight)) : 0;
    weights.push(weight.shares === undefined ? address : weights[weight.shares]!);
  }
  const { cacheOffsets, pageStride, cellStride } = layoutPage(plan, part, cells);
  return {
    ...head,
    buffers: layout.offsets.map((offset) => rows + offset),
    quantized,
    weights,
    draw,
    cache: room.end,
    cacheOffsets,
    pageStride,
    cellStride,
    cells,
    cellTables: cellTables.tables,
    cellEntries: cellTables.tableEntries,
  };
}

/** Layout of a page. Caches without a window come first: they are its first cell. */
function layoutPage(
  { caches }: Plan,
  part: PlanPart,
  cells: number,
): Pick<MemoryMap, 'cacheOffsets' | 'pageStride' | 'cellStride'> {
  const cacheOffsets = caches.map(() => 0);
  let end = 0;
  const place = (some: (window: number | undefined) => boolean): void => {
    for (const id of part.caches) {
      if (!some(caches[id]!.window)) continue;
      cacheOffsets[id] = end;
      end += cachePageBytes(caches[id]!);
    }
  };
  place((window) => window === undefined);
  const cellBytes = end;
  place((window) => window !== undefined);
  if (cells <= 1) return { cacheOffsets, pageStride: end, cellStride: end };
  const cellStride = align(Math.max(cellBytes, Math.ceil(end / cells)));
  return { cacheOffsets, pageStride: cellStride * cells, cellStride };
}

/** Largest number of records that a step is lowered to. */
function mostRecords(step: Step): number {
  if (step.op !== 'experts') return 2;
  // Per expert: gather, three products each with a quantization, activation, scatter.
  return 2 + 9 * step.gate.length;
}
