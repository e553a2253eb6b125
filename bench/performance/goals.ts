/** The goals of docs/performance.md, and their rows for a report. */
import type { Spread } from '../../src/measure/statistics.ts';
import type { CallersReport } from '../callers-report.ts';
import type { LoadRow } from '../load-rate.ts';
import type { PeerReport } from '../peers/compare.ts';
import type { PeerRow } from '../peers/comparison.ts';
import type { ScalingReport } from '../scaling.ts';
import { callersRows } from './callers.ts';
import type { GoalRow } from './goal-row.ts';
import type { Report } from './report-format.ts';

type Storage = PeerRow['storage'];
type Shape = PeerRow['shape'];

const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
const times = (ratio: number): string => `${ratio.toFixed(2)}x`;

/** The rows of all goals, in order; parts that were not run have none. */
export function goalRows(report: Report): GoalRow[] {
  const { vnni } = report.machine;
  const byMachine = (withVnni: number, elsewhere: number): number => (vnni ? withVnni : elsewhere);
  const decode = (shapes: readonly Shape[], storages: readonly Storage[], ratio: number, share?: number): GoalRow[] =>
    pairs(shapes, storages).flatMap(([shape, storage]) => decodeRows(report, shape, storage, ratio, share));
  const prefill = (storage: Storage, ratio: number): GoalRow[] =>
    (['gpt2', 'gemma3-1b'] as const).flatMap((shape) => prefillRows(report, shape, storage, ratio));
  return [
    ...decode(['gemma3-1b', 'tinyllama-1.1b'], ['q8_0', 'f16'], 1.8, 0.88),
    ...decode(['gemma3-1b', 'tinyllama-1.1b'], ['q4_0'], 1.8, 0.75),
    ...decode(['gpt2'], ['q8_0', 'q4_0'], 3),
    ...decode(['gpt2'], ['f32'], 1.7),
    ...decode(['gpt2', 'tinyllama-1.1b'], ['q4_k', 'q6_k'], 1.3),
    ...prefill('q8_0', byMachine(2.5, 1.3)),
    ...prefill('q4_0', byMachine(1.4, 1.2)),
    ...prefill('f32', byMachine(0.95, 0.9)),
    ...contextRows(report),
    ...(['gpt2', 'gemma3-1b', 'tinyllama-1.1b'] as const).flatMap((shape) => batchRows(report, shape)),
    ...loadRows(report),
    ...firstTokenRows(report),
    ...scalingRows(report),
    ...threadRows(report),
    ...narrowRows(report),
    ...['gemma3-1b', 'gpt2'].flatMap((shape) => callersGoals(report, shape)),
  ];
}

const callersGoals = (report: Report, shape: string): GoalRow[] =>
  withResult<CallersReport>(report, `callers ${shape}`, `many callers, ${shape}`, callersRows);

const pairs = <A, B>(first: readonly A[], second: readonly B[]): [A, B][] =>
  first.flatMap((a) => second.map((b): [A, B] => [a, b]));

/** Rows for the result of a part; a row with its error if it failed; none if it was not run. */
function withResult<T>(report: Report, part: string, work: string, rows: (result: T) => GoalRow[]): GoalRow[] {
  const found = report.parts[part];
  if (found === undefined) return [];
  const failed = (why: string): GoalRow[] => [
    { work, goal: '', measured: `failed: ${why}`, spread: '', of_roof: '', met: undefined },
  ];
  if (found.result === undefined) return failed(found.error ?? 'no result');
  try {
    return rows(found.result as T);
  } catch (error) {
    return failed(`its result cannot be read: ${(error as Error).message}`);
  }
}

function peerRows(
  report: Report,
  [shape, storage]: readonly [Shape, Storage],
  phase: PeerRow['phase'],
  rows: (measured: readonly PeerRow[]) => GoalRow[],
): GoalRow[] {
  const work = `${phase}, ${shape} ${storage.toUpperCase()}`;
  return withResult<PeerReport>(report, `peers ${shape} ${storage}`, work, ({ comparisons, failures }) => {
    const measured = comparisons.flatMap((comparison) => comparison.rows).filter((row) => row.phase === phase);
    if (measured.length === 0) throw new Error(failures[0] ?? 'no rows');
    return rows(measured);
  });
}

/** Range of the ratio, from the least to the most favourable quartiles. */
const ratioSpread = ({ lanewise, peer }: PeerRow): string =>
  `${(peer.low / lanewise.high).toFixed(2)} - ${times(peer.high / lanewise.low)}`;

/** The row of the way with the lower ratio, and a text with the other figures. */
function lowestRatio(rows: readonly PeerRow[]): { row: PeerRow; measured: string } {
  const row = rows.reduce((worst, other) => (other.ratio < worst.ratio ? other : worst));
  const other = rows.map(({ way, ratio }) => `${way} ${times(ratio)}`).join(', ');
  const engine = rows.find(({ way }) => way === 'generate')!.engine_ratio;
  return { row, measured: `${times(row.ratio)} (${other}; generate over engine time ${times(engine)})` };
}

function decodeRows(report: Report, shape: Shape, storage: Storage, ratio: number, share?: number): GoalRow[] {
  return peerRows(report, [shape, storage], 'decode', (rows) => {
    const work = `decode, ${shape} ${storage.toUpperCase()}`;
    const { row, measured } = lowestRatio(rows);
    const whole = rows.find(({ way }) => way === 'generate')!;
    const of_roof = percent(whole.of_roof!);
    const result: GoalRow[] = [
      { work, goal: times(ratio), measured, spread: ratioSpread(row), of_roof, met: row.ratio >= ratio },
    ];
    if (share === undefined) return result;
    const at = (ms: number): number => (whole.of_roof! * whole.lanewise.median) / ms;
    result.unshift({
      work,
      goal: `${percent(share)} of the read rate`,
      measured: `${of_roof}: ${(whole.rate! / 1e9).toFixed(1)} GB/s, ${whole.lanewise.median.toFixed(1)} ms`,
      spread: `${percent(at(whole.lanewise.high))} - ${percent(at(whole.lanewise.low))}`,
      of_roof,
      met: whole.of_roof! >= share,
    });
    return result;
  });
}

function prefillRows(report: Report, shape: Shape, storage: Storage, ratio: number): GoalRow[] {
  return peerRows(report, [shape, storage], 'prefill', ([row]) => [
    {
      work: `prefill, ${shape} ${storage.toUpperCase()}`,
      goal: times(ratio),
      measured: `${times(row!.ratio)}: ${(1000 / row!.lanewise.median).toFixed(0)} tok/s`,
      spread: ratioSpread(row!),
      of_roof: percent(row!.of_roof!),
      met: row!.ratio >= ratio,
    },
  ]);
}

function batchRows(report: Report, shape: Shape): GoalRow[] {
  return peerRows(report, [shape, 'q8_0'], 'batch', (rows) => {
    const { row, measured } = lowestRatio(rows);
    const slow = rows.reduce((worst, other) => (other.of_one! < worst.of_one! ? other : worst));
    const work = `batch of 8 sequences, ${shape} Q8_0`;
    const ofOne = rows.map(({ way, of_one }) => `${way} ${times(of_one!)}`).join(', ');
    const [low, high] = [slow.lanewise.high, slow.lanewise.low].map(
      (ms) => (slow.of_one! * slow.lanewise.median) / ms,
    ) as [number, number];
    return [
      {
        work,
        goal: '4x the tokens of one',
        measured: `${times(slow.of_one!)} (${ofOne})`,
        spread: `${low.toFixed(2)} - ${times(high)}`,
        of_roof: '',
        met: slow.of_one! >= 4,
      },
      { work, goal: '1.5x of 8 there', measured, spread: ratioSpread(row), of_roof: '', met: row.ratio >= 1.5 },
    ];
  });
}

const spreadText = ({ low, high }: Spread, digits: number, unit: string): string =>
  `${low.toFixed(digits)} - ${high.toFixed(digits)}${unit}`;

function loadRows(report: Report): GoalRow[] {
  return withResult<readonly LoadRow[]>(report, 'load', 'load as Q8_0', (rows) =>
    rows.map(({ shape, ms, gigabytes_per_second: rate }) => ({
      work: `load BF16 as Q8_0, ${shape}`,
      goal: '1.5 GB/s of input',
      measured: `${rate.median.toFixed(2)} GB/s, ${(ms.median / 1000).toFixed(2)} s`,
      spread: spreadText(rate, 2, ' GB/s'),
      of_roof: '',
      met: rate.median >= 1.5,
    })),
  );
}

const SCALING_GOAL = 1.85;

function scalingRows(report: Report): GoalRow[] {
  return withResult<ScalingReport>(report, 'scaling', 'prefill, 2 threads', ({ threads, models, machine }) =>
    models.map(({ shape, speedup, low, high }) => ({
      work: `prefill with ${threads} threads against 1, ${shape} Q8_0`,
      goal: `${SCALING_GOAL}x where the machine scales so`,
      measured: `${times(speedup)} (int8 tile ${times(machine.q8)}, f32 tile ${times(machine.f32)}, memory reads ${times(machine.read)})`,
      spread: `${low.toFixed(2)} - ${times(high)}`,
      of_roof: percent(speedup / machine.q8),
      met: speedup >= Math.min(SCALING_GOAL, machine.q8),
    })),
  );
}

interface StolenRow {
  readonly conditions: string;
  readonly threads: number;
  readonly ratio: number;
}

function threadRows(report: Report): GoalRow[] {
  return withResult<readonly StolenRow[]>(report, 'threads', 'too many threads, a stolen core', (rows) =>
    [...new Set(rows.map(({ conditions }) => conditions))].map((conditions) => {
      const several = rows.filter((row) => row.conditions === conditions && row.threads > 1);
      const worst = Math.max(...several.map(({ ratio }) => ratio));
      return {
        work: `decode, gpt2 Q8_0, ${conditions}: time over that of 1 thread`,
        goal: 'at most 1.10',
        measured: several.map(({ threads, ratio }) => `${threads} threads ${ratio.toFixed(2)}`).join(', '),
        spread: '',
        of_roof: '',
        met: worst <= 1.1,
      };
    }),
  );
}

interface KernelRow {
  readonly kernel: string;
  readonly phase: string;
  readonly threads: number;
  readonly unit: string;
  readonly median: number;
  readonly of_roof: number | null;
}

const NARROW_GOAL = 0.85;

/** Matmuls of many rows with 128-bit kernels, compared with the 128-bit tile loops. */
function narrowRows(report: Report): GoalRow[] {
  return withResult<readonly KernelRow[]>(report, 'kernels narrow', '128-bit kernels', (rows) =>
    products(rows)
      .filter(({ phase }) => phase === 'prefill')
      .map(({ kernel, threads, unit, median, of_roof }) => ({
        work: `${kernel}, many rows, 128 bits, ${threads} threads`,
        goal: `${percent(NARROW_GOAL)} of its tile loop`,
        measured: `${median.toFixed(1)} ${unit}`,
        spread: '',
        of_roof: percent(of_roof!),
        met: of_roof! >= NARROW_GOAL,
      })),
  );
}

/** Matmuls on all threads that have a roof. */
function products(rows: readonly KernelRow[]): KernelRow[] {
  const threads = Math.max(...rows.map((row) => row.threads));
  return rows.filter((row) => row.threads === threads && row.of_roof !== null && row.kernel.startsWith('matmul'));
}

/** Rate and share of the roof of every matmul kernel, 256 and 128 bits side by side; empty if none was measured. */
export function kernelCells(report: Report): string[][] {
  const cell = ({ unit, median, of_roof }: KernelRow): string => `${median.toFixed(1)} ${unit}, ${percent(of_roof!)}`;
  const table = new Map<string, string[]>();
  for (const [column, width] of (['wide', 'narrow'] as const).entries()) {
    const rows = (report.parts[`kernels ${width}`]?.result ?? []) as readonly KernelRow[];
    for (const row of products(rows)) {
      const key = `${row.kernel}, ${row.phase === 'decode' ? 'one row' : 'many rows'}`;
      if (!table.has(key)) table.set(key, [key, '', '']);
      table.get(key)![column + 1] = cell(row);
    }
  }
  return [...table.values()];
}

interface ContextRow {
  readonly kvCache: string;
  readonly depth: number;
  readonly slowdown: number;
  readonly explained: number;
  readonly ratio: number;
}

/** The greatest depth for each storage of the KV cache. */
function contextRows(report: Report): GoalRow[] {
  return withResult<readonly ContextRow[]>(report, 'context', 'decode in a long context', (rows) => {
    const deepest = Math.max(...rows.map(({ depth }) => depth));
    return rows
      .filter(({ depth }) => depth === deepest)
      .map(({ kvCache, depth, slowdown, explained, ratio }) => ({
        work: `decode behind ${depth} tokens, gemma3-1b Q8_0, cache in ${kvCache}`,
        goal: 'at most 1.20 of what the bytes explain',
        measured: `${ratio.toFixed(2)}: slower by ${times(slowdown)}, bytes ${times(explained)}`,
        spread: '',
        of_roof: '',
        met: ratio <= 1.2,
      }));
  });
}

interface FirstTokenRow {
  readonly model: string;
  readonly seconds: number;
  readonly goal: number;
}

/** Time from the start of the command to the first token. */
function firstTokenRows(report: Report): GoalRow[] {
  return withResult<readonly FirstTokenRow[]>(report, 'first token', 'first token', (rows) =>
    rows.map(({ model, seconds, goal }) => ({
      work: `first token, ${model}`,
      goal: `under ${goal} s`,
      measured: `${seconds.toFixed(2)} s`,
      spread: '',
      of_roof: '',
      met: seconds < goal,
    })),
  );
}
