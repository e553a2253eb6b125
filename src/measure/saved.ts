/** Saves the times of a benchmark to a file, and reads them for a comparison. */

import { readFile } from 'node:fs/promises';
import type { FormatErrorCode } from '../error-codes.ts';
import { FormatError } from '../errors.ts';
import { writeAtomically } from '../node.ts';
import type { Work } from './turn.ts';

const FORMAT = 'lanewise-bench';
const VERSION = 1;

/** The model that was measured; must be equal for a comparison. */
export interface Subject {
  readonly model_type: string;
  readonly parameters: number;
  readonly layers: number;
  readonly dim: number;
  readonly vocab: number;
}

/** The machine's rates per second, measured in one turn. */
export interface TurnRoofs {
  readonly read: number;
  readonly f32: number;
  readonly q8: number;
}

export interface SavedRow {
  readonly policy: string;
  /** Milliseconds of each turn; for decode the median of its steps. */
  readonly prefill_ms: readonly number[];
  readonly decode_ms: readonly number[];
  /** The kind of tiles that do most of the work of a prefill. */
  readonly tile: 'f32' | 'q8';
}

export interface SavedBench {
  readonly date: string;
  readonly cpu: string;
  readonly node: string;
  readonly threads: number;
  readonly vector_bits: number | undefined;
  readonly kv_cache: string;
  readonly subject: Subject;
  readonly work: Work;
  /** Rates of the machine by turn. */
  readonly roofs: readonly TurnRoofs[];
  readonly rows: readonly SavedRow[];
}

export async function writeBench(file: string, saved: SavedBench): Promise<void> {
  const text = `${JSON.stringify({ format: FORMAT, version: VERSION, ...saved }, null, 1)}\n`;
  await writeAtomically(file, async (handle) => handle.writeFile(text));
}

/** @throws FormatError for a file that is damaged, of another version, or not a saved benchmark */
export async function readBench(file: string): Promise<SavedBench> {
  const bad = (code: FormatErrorCode, what: string): FormatError => new FormatError(code, file, what);
  const expected = `expected a file that lanewise bench has saved`;
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw bad('InvalidBench', `${expected}, found no JSON: ${error.message}`);
  }
  if (json?.format !== FORMAT) throw bad('InvalidBench', `${expected}, found another JSON file`);
  if (json.version !== VERSION)
    throw bad('UnknownVersion', `expected version ${VERSION}, found ${JSON.stringify(json.version)}: measure it again`);
  const saved = json as unknown as SavedBench;
  const positive = (values: unknown): boolean =>
    Array.isArray(values) && values.length > 0 && values.every((value) => Number.isFinite(value) && value > 0);
  const rates = Array.isArray(saved.roofs) ? saved.roofs.map((turn) => [turn?.read, turn?.f32, turn?.q8]) : [];
  const counts = [saved.work?.prompt, saved.work?.decode, saved.work?.repeat, saved.threads];
  if (!positive(counts)) throw bad('InvalidBench', `${expected}: work or threads are missing`);
  if (rates.length === 0 || !rates.every(positive)) throw bad('InvalidBench', `${expected}: roofs are missing`);
  const whole = ({ policy, tile, prefill_ms, decode_ms }: SavedRow): boolean =>
    typeof policy === 'string' &&
    (tile === 'f32' || tile === 'q8') &&
    [prefill_ms, decode_ms].every((times) => positive(times) && times.length === rates.length);
  if (!Array.isArray(saved.rows) || saved.rows.length === 0 || !saved.rows.every(whole))
    throw bad('InvalidBench', `${expected}: rows are missing, or have other turns than the roofs`);
  return saved;
}
