/** Validates batches: kernels do not check addresses, so a bad batch would read or write memory of others. */
import { LanewiseError } from '../errors.ts';
import type { Plan } from '../plan/step.ts';
import { type Batch, PAGE } from './backend.ts';

export interface BatchLimits {
  readonly plan: Plan;
  readonly maxRows: number;
  readonly maxWanted: number;
  /** Number of allocated cache pages. */
  readonly pageCount: number;
  /** Cells of a page (CachePages.cells); default: 1. */
  readonly cellsPerPage?: number;
  /** Largest number of page table entries of one forward, over all its sequences. */
  readonly maxTableEntries?: number;
}

/** @throws LanewiseError InvalidBatch */
export function checkBatch(batch: Batch, limits: BatchLimits): void {
  checkCounts(batch, limits);
  checkRows(batch, limits);
  checkPages(batch, limits);
}

function fail(what: string): never {
  throw new LanewiseError('InvalidBatch', what);
}

function checkCounts(batch: Batch, { maxRows, maxWanted }: BatchLimits): void {
  const { tokens, types, positions, sequences, pages, wanted, lengths } = batch;
  const rows = tokens.length;
  if (rows === 0 || rows > maxRows) fail(`a forward takes 1 to ${maxRows} rows, got ${rows}`);
  for (const [name, values] of Object.entries({ types, positions, sequences }))
    if (values && values.length !== rows) fail(`expected ${name} of ${rows} rows, got ${values.length}`);
  if (pages.length > maxRows) fail(`a forward takes at most ${maxRows} sequences, got ${pages.length}`);
  if (lengths && lengths.length !== pages.length)
    fail(`expected lengths of ${pages.length} sequences, got ${lengths.length}`);
  if (wanted.length > maxWanted) fail(`at most ${maxWanted} rows of logits, got ${wanted.length}`);
  for (const [i, row] of wanted.entries()) {
    if (!(row >= 0 && row < rows)) fail(`wanted row ${row} is not in a batch of ${rows} rows`);
    if (i > 0 && row <= wanted[i - 1]!) fail(`wanted rows must rise, got ${row} after ${wanted[i - 1]}`);
  }
}

function checkRows({ tokens, types, positions, sequences, pages }: Batch, { plan }: BatchLimits): void {
  const [vocab, context, kinds] = [tableRows(plan, 'token'), tableRows(plan, 'position'), tableRows(plan, 'type')];
  const ended = new Set<number>();
  for (let row = 0; row < tokens.length; row++) {
    const [token, position, sequence] = [tokens[row]!, positions[row]!, sequences[row]!];
    if (!(token >= 0 && token < vocab)) fail(`token id ${token} of row ${row}: ids are 0 to ${vocab - 1}`);
    if (!(position >= 0 && position < context)) fail(`position ${position} of row ${row} is beyond ${context}`);
    if (types && !(types[row]! >= 0 && types[row]! < kinds))
      fail(`token type ${types[row]} of row ${row}: types are 0 to ${kinds - 1}`);
    if (pages[sequence]?.[Math.floor(position / PAGE)] === undefined) fail(`row ${row} has no cache page`);
    if (row === 0) continue;
    const [before, previous] = [sequences[row - 1]!, positions[row - 1]!];
    if (sequence === before) {
      if (position !== previous + 1)
        fail(`row ${row} of sequence ${sequence} has position ${position} after ${previous}`);
    } else {
      ended.add(before);
      if (ended.has(sequence)) fail(`rows of sequence ${sequence} are not neighbours`);
    }
  }
}

function checkPages(
  { positions, sequences, pages, cells }: Batch,
  { pageCount, maxTableEntries, cellsPerPage = 1 }: BatchLimits,
): void {
  const entries = pages.reduce((sum, table) => sum + table.length, 0);
  if (maxTableEntries !== undefined && entries > maxTableEntries)
    fail(`more than ${maxTableEntries} page table entries`);
  for (const table of pages)
    for (const page of table) if (!(page >= 0 && page < pageCount)) fail(`cache page ${page}: there are ${pageCount}`);
  if (cells && (cells.length !== pages.length || cells.some((table, i) => table.length !== pages[i]!.length)))
    fail('expected as many cells as pages');
  for (const table of cells ?? [])
    for (const cell of table)
      if (cellsPerPage > 0 && !(cell >= 0 && cell < pageCount * cellsPerPage))
        fail(`cell ${cell} of the cache: there are ${pageCount * cellsPerPage}`);
  /** For each page that the batch writes: its sequence, and its index in the page table. */
  const written = new Map<number, string>();
  for (const [row, position] of positions.entries()) {
    const [sequence, index] = [sequences[row]!, Math.floor(position / PAGE)];
    const page = pages[sequence]![index]!;
    const place = `${sequence} ${index}`;
    if ((written.get(page) ?? place) !== place) fail(`cache page ${page} is written in two places`);
    written.set(page, place);
    if (cells && cellsPerPage > 0 && cells[sequence]![index] !== page * cellsPerPage)
      fail(`row ${row} is written to cache page ${page}, but not to its first cell`);
  }
}

/** Number of rows of the smallest table that the plan indexes by token, position or type. */
function tableRows({ steps, weights }: Plan, index: 'token' | 'position' | 'type'): number {
  return steps.reduce(
    (least, step) =>
      step.op === 'embed' && step.index === index ? Math.min(least, weights[step.table]!.shape[0]!) : least,
    Number.POSITIVE_INFINITY,
  );
}
