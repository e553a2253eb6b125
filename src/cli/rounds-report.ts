/** The report of `lanewise bench rounds`: its tables, charts and sentences. */
import { lastLevelCache } from '../measure/cache-size.ts';
import type { ComparedRow } from '../measure/compare.ts';
import { type Machine, machineRows } from '../measure/machine.ts';
import { middle, ratesOf } from '../measure/policies.ts';
import { decodeChange, type Round, type RoundMetric } from '../measure/rounds.ts';
import type { TurnRoofs } from '../measure/saved.ts';
import { type Change, median } from '../measure/statistics.ts';
import type { Work } from '../measure/turn.ts';
import type { PhaseTimes } from '../node.ts';
import { formatBytes, formatMilliseconds } from '../profile/units.ts';
import type { Chart, Report, Section, Table } from '../report/report.ts';
import { shareOfRead } from './bench.ts';
import { linearLayers } from './models.ts';
import { bytesOf, groupLayers } from './storage-table.ts';

export interface RoundsData {
  readonly name: string;
  /** `SafeTensors`, `GGUF` */
  readonly format: string;
  readonly command: string;
  readonly machine: Machine;
  readonly work: Work;
  readonly kvCache: string;
  /** Whether models were loaded anew for every turn. */
  readonly reloaded: boolean;
  readonly roofs: readonly TurnRoofs[];
  readonly rounds: readonly Round[];
  readonly against?: { readonly file: string; readonly rows: readonly ComparedRow[] };
}

export function roundsReport(data: RoundsData): Report {
  const { name, command, machine, roofs, rounds, against } = data;
  const { threads, vectorBits } = rounds[0]!.times.model;
  const read = roofs.map((turn) => turn.read);
  return {
    title: `Rounds of ${name}`,
    command,
    machine: machineRows(machine, { threads, vectorBits, read }),
    sections: [
      {
        title: 'Summary',
        text: [...rounds.map((round, index) => summaryOf(data, round, index)), ...fastestOf(rounds)]
          .map((line) => `- ${line}`)
          .join('\n'),
      },
      { title: 'Model', table: modelTable(data) },
      { title: 'Comparison across rounds', table: comparison(data), chart: decodeChart(rounds) },
      ...(against ? [againstSection(against)] : []),
      { title: 'Where the time of a decode step goes', table: phaseTable(rounds), chart: phaseChart(rounds) },
      ...rounds.flatMap((round, index) => roundSections(round, index)),
      { title: 'Decode steps of all rounds', chart: stepChart(rounds) },
      { title: 'How it was measured', text: method(data) },
    ],
  };
}

const roundName = (index: number, { times }: Round): string => `${index + 1}: ${times.policy}`;

/** One sentence or two that say what a round did. */
export function summaryOf({ work, roofs, rounds }: RoundsData, round: Round, index: number): string {
  const { times, metrics, weightBytes } = round;
  const { decode, prefill } = metrics;
  const share = shareOfRead(ratesOf(times, roofs).decode / middle(roofs, 'read'), times.bytes, lastLevelCache());
  const stored = `Round ${roundName(index, round)}. ${times.quantized} of ${times.layers} linear layers quantized, ${formatBytes(weightBytes)} of weights`;
  const speed = `${formatMilliseconds(decode.spread.median)} per decode step (${share.endsWith('%') ? `${share} of the memory read rate` : share}), ${tokenRate(work, prefill)} tokens/s of prefill`;
  if (index === 0) return `${stored}: ${speed}.`;
  const saved = weightBytes / rounds[0]!.weightBytes - 1;
  const bytes = Math.abs(saved) < 0.0005 ? 'as many bytes' : `${signed(saved, 0)} bytes`;
  return `${stored} (${bytes}): ${speed}. Against round 1 decode is ${outcome(decode)}, prefill ${outcome(prefill)}.`;
}

/** Compares the other rounds with the one whose decode is fastest. Nothing for fewer than three, which are compared already. */
export function fastestOf(rounds: readonly Round[]): string[] {
  if (rounds.length < 3) return [];
  const time = ({ metrics }: Round): number => metrics.decode.spread.median;
  const fastest = rounds.reduce((best, round) => (time(round) < time(best) ? round : best));
  const others = rounds.flatMap((round, index) => {
    if (round === fastest) return [];
    const { change, verdict } = decodeChange(round, fastest);
    return `round ${roundName(index, round)} ${signed(change.ratio - 1)} (${interval(change)}, ${verdict})`;
  });
  return [`Fastest decode: round ${roundName(rounds.indexOf(fastest), fastest)}. Against it ${others.join('; ')}.`];
}

/** `a gain: -64.8 % of the time (95 % interval -65.1 to -64.2)` */
function outcome({ change, verdict }: RoundMetric): string {
  const words = { regression: 'a regression', gain: 'a gain', noise: 'noise' };
  return `${words[verdict!]}: ${signed(change!.ratio - 1)} of the time (95 % interval ${interval(change!)})`;
}

const signed = (share: number, digits = 1): string => `${share < 0 ? '' : '+'}${(share * 100).toFixed(digits)} %`;
const interval = ({ low, high }: Change): string => {
  const [from, to] = [low, high].map((ratio) => signed(ratio - 1).slice(0, -2));
  return `${from} to ${to} %`;
};

const tokenRate = ({ prompt }: Work, { spread }: RoundMetric): string =>
  ((prompt / spread.median) * 1000).toFixed(prompt / spread.median < 0.1 ? 1 : 0);

function modelTable({ name, format, rounds }: RoundsData): Table {
  const { modelType, parameters, config } = rounds[0]!.times.model.description;
  return {
    columns: [
      { name: 'Model' },
      { name: 'Type' },
      { name: 'Format' },
      { name: 'Parameters', align: 'right' },
      { name: 'Layers' },
      { name: 'd_model' },
      { name: 'Vocab' },
      ...rounds.map((round, index) => ({ name: `Quantized in ${roundName(index, round)}`, align: 'right' as const })),
    ],
    rows: [
      [
        name,
        modelType,
        format,
        `${(parameters / 1e6).toFixed(0)}M`,
        config.layers,
        config.dim,
        config.vocab,
        ...rounds.map(({ times }) => `${times.quantized} of ${times.layers}`),
      ],
    ],
  };
}

function comparison({ work, roofs, rounds }: RoundsData): Table {
  const compared =
    (value: (metric: RoundMetric) => string, name: keyof Round['metrics']) =>
    (round: Round): string => {
      const metric = round.metrics[name];
      const { change, verdict } = metric;
      if (change === undefined) return value(metric);
      return `${value(metric)} (${signed(change.ratio - 1)}, ${interval(change)}): ${verdict}`;
    };
  const first = rounds[0]!.weightBytes;
  const rows: [string, (round: Round) => string][] = [
    ['Layers quantized', ({ times }) => `${times.quantized} of ${times.layers}`],
    [
      'Bytes of weights',
      ({ weightBytes }) =>
        formatBytes(weightBytes) + (weightBytes === first ? '' : ` (${signed(weightBytes / first - 1, 0)})`),
    ],
    ['Output projection', compared(({ spread }) => formatMilliseconds(spread.median), 'projection')],
    ['Decode per step, steady', compared(({ spread }) => formatMilliseconds(spread.median), 'decode')],
    ['Prefill', compared((metric) => `${tokenRate(work, metric)} tokens/s`, 'prefill')],
    [
      'Decode, of the memory read rate',
      ({ times }) => {
        const { decode } = ratesOf(times, roofs);
        return `${(decode / 1e9).toFixed(1)} GB/s, ${shareOfRead(decode / middle(roofs, 'read'), times.bytes, lastLevelCache())}`;
      },
    ],
  ];
  return {
    caption: 'Medians; in brackets the change of the time against round 1, its 95 % interval and the verdict.',
    columns: [
      { name: 'Metric' },
      ...rounds.map((round, index) => ({ name: `Round ${roundName(index, round)}`, align: 'right' as const })),
    ],
    rows: rows.map(([name, cell]) => [name, ...rounds.map(cell)]),
  };
}

function decodeChart(rounds: readonly Round[]): Chart {
  const points = (name: 'decode' | 'projection') =>
    rounds.map((round, index) => {
      const { median: y, low, high } = round.metrics[name].spread;
      return { x: roundName(index, round), y, low, high };
    });
  return {
    kind: 'bars',
    title: 'Decode step and its output projection, medians and quartiles of the turns',
    x: { name: 'Round' },
    y: { name: 'Time', unit: 'ms' },
    series: [
      { name: 'decode step', points: points('decode') },
      { name: 'output projection', points: points('projection') },
    ],
  };
}

const phaseNames = ['embedding', 'layers', 'norm', 'projection', 'total'] as const;
const title = (name: string): string => name[0]!.toUpperCase() + name.slice(1);
const phaseColumns = phaseNames.map((name) => ({ name: title(name), align: 'right' as const }));

/** Medians of the decode steps that were timed by phase. */
const middleStep = ({ steps }: Round): PhaseTimes =>
  Object.fromEntries(phaseNames.map((name) => [name, median(steps.slice(1).map((step) => step[name]))])) as never;

const phaseTable = (rounds: readonly Round[]): Table => ({
  columns: [{ name: 'Round' }, ...phaseColumns],
  rows: rounds.map((round, index) => {
    const step = middleStep(round);
    return [roundName(index, round), ...phaseNames.map((name) => formatMilliseconds(step[name]))];
  }),
});

const phaseChart = (rounds: readonly Round[]): Chart => ({
  kind: 'bars',
  title: 'Time of a decode step by phase',
  x: { name: 'Phase' },
  y: { name: 'Time', unit: 'ms' },
  series: rounds.map((round, index) => {
    const step = middleStep(round);
    return { name: roundName(index, round), points: phaseNames.map((name) => ({ x: title(name), y: step[name] })) };
  }),
});

function roundSections(round: Round, index: number): Section[] {
  const layers = linearLayers(round.times.model.description);
  const groups = groupLayers(layers);
  return [
    {
      title: `Round ${roundName(index, round)}: which layers are affected, and why`,
      table: {
        columns: [
          { name: 'Layer type' },
          { name: 'Count', align: 'right' },
          { name: 'Dimensions', align: 'right' },
          { name: 'Quantized?' },
          { name: 'Stored as' },
          { name: 'Bytes', align: 'right' },
          { name: 'Reason' },
        ],
        rows: [
          ...groups.map(({ type, layers: group, first }) => [
            type,
            group.length,
            `${first.in} → ${first.out}`,
            first.quantized ? 'yes' : 'no',
            first.stored,
            bytesOf(group),
            first.reason,
          ]),
          ['Total', layers.length, '', `${round.times.quantized} of ${layers.length}`, '', bytesOf(layers), ''],
        ],
      },
    },
    {
      title: `Round ${roundName(index, round)}: forward timings per step`,
      table: {
        columns: [{ name: 'Step' }, ...phaseColumns],
        rows: round.steps.map((step, at) => [
          at === 0 ? '1 (prefill)' : `${at + 1}`,
          ...phaseNames.map((name) => formatMilliseconds(step[name])),
        ]),
      },
    },
  ];
}

const stepChart = (rounds: readonly Round[]): Chart => ({
  kind: 'line',
  title: 'Decode steps, medians of the turns',
  x: { name: 'Step' },
  y: { name: 'Total', unit: 'ms' },
  series: rounds.map((round, index) => ({
    name: roundName(index, round),
    points: round.steps.slice(1).map(({ total }, at) => ({ x: at + 2, y: total })),
  })),
});

function againstSection({ file, rows }: NonNullable<RoundsData['against']>): Section {
  return {
    title: 'Against the earlier run',
    text: `Times saved in ${file} are scaled by the rates of the machine in both runs (memory reads for decode, tile loops for prefill) and compared by rank (Mann-Whitney), 95 % interval.`,
    table: {
      columns: [
        { name: 'Round' },
        { name: 'Work' },
        { name: 'Before', unit: 'ms', align: 'right' },
        { name: 'Now', unit: 'ms', align: 'right' },
        { name: 'Change', align: 'right' },
        { name: 'Verdict' },
      ],
      rows: rows.map(({ policy, work, before, now, change, verdict }) => [
        policy,
        work,
        before.median,
        now.median,
        `${signed(change.ratio - 1)} (${interval(change)})`,
        verdict,
      ]),
    },
  };
}

function method({ work, kvCache, reloaded, rounds }: RoundsData): string {
  const turns = rounds[0]!.times.turns.length;
  const order = reloaded
    ? 'The memory does not hold the models of all rounds at once: each was loaded anew for every turn and ran a few steps before it.'
    : 'All models were loaded at once; a first turn was not counted.';
  return [
    `Each of ${turns} turns ran every round once, in alternating order: a prefill of ${work.prompt} tokens, then ${work.decode} decode steps. ${order} Keys and values: ${kvCache}.`,
    `The tables per step are medians over the turns; the steady time per step is that of the steps after those of the table, without timing inside. Changes are medians of the ratios within a turn, with the 95 % interval of a seeded bootstrap over the turns. A verdict is noise unless the whole interval is beyond 1 %.`,
  ].join('\n\n');
}
