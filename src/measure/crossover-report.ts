/** The report of `lanewise bench crossover`. */
import type { Storage } from '../quant/storage.ts';
import { formatNumber } from '../report/cells.ts';
import type { Cell, Chart, Column, Report, Section, Series, Table } from '../report/report.ts';
import { bootstrapChange } from './bootstrap.ts';
import { FEWEST_TURNS } from './compare.ts';
import type { RatioAt, ThresholdRule } from './crossing.ts';
import {
  type Circumstances,
  type ComparedTypes,
  type Crossover,
  circumstancesOf,
  fastestOf,
  type ModelLayers,
  type Rule,
  ruleTime,
  thresholdRule,
  timesOf,
} from './crossover.ts';
import type { Shape, ShapeTimes } from './shapes.ts';
import { median } from './statistics.ts';

/** The threshold of the default policy. */
const USUAL_THRESHOLD = 1024;
/** A type that needs at most this share of the other's time is much faster. */
const MUCH_FASTER = 0.4;

export interface ReportFrame {
  readonly command: string;
  readonly machine: Report['machine'];
}

export function crossoverReport(measured: Crossover, { command, machine }: ReportFrame): Report {
  const { options, turns, pairs } = measured;
  const [base] = options.types;
  const all = circumstancesOf(options);
  const mainPairs = pairs.filter((pair) => pair.base === base);
  return {
    title: 'Which storage type is fastest, by dimension',
    command,
    machine: [...machine, ['Turns', `${turns}, types in turns within each`]],
    sections: [
      ...(pairs.length > 0 ? [summary(mainPairs, turns), ...ranges(measured, all), crossingsSection(pairs)] : []),
      ...all.flatMap((circumstances) => squareSections(measured, circumstances)),
      ...modelSections(measured),
    ],
  };
}

export const typeName = (type: Storage): string => type.toUpperCase();

/** `one row, from memory` */
export const circumstancesText = ({ rows, from }: Circumstances): string =>
  `${rows === 1 ? 'one row' : `${rows} rows`}, from ${from}`;

const shapeText = ([out, inputs]: Shape): string => `${inputs} → ${out}`;

/** What a threshold for converting `base` to `other` would have to be. */
export function ruleText({ base, other, result }: Pick<ComparedTypes, 'base' | 'other' | 'result'>): string {
  const { rule, ratios, crossings } = result;
  const [from, to] = [typeName(base), typeName(other)];
  const dim = (value: number): string => `${Math.round(value)}`;
  const interval = crossings[0] ? ` (${dim(crossings[0].low)} to ${dim(crossings[0].high)})` : '';
  switch (rule.kind) {
    case 'from':
      return `${to} from ${dim(rule.dim)}${interval}, ${from} below: ${other}:min-dim=${dim(rule.dim)}`;
    case 'below':
      return `${to} below ${dim(rule.dim)}${interval}, ${from} from there on: no minimum says that`;
    case 'always': {
      const winner = rule.winner === 'other' ? to : from;
      const everywhere = ratios.every((ratio) => ratio.winner === rule.winner);
      return `no threshold: ${winner} wins ${everywhere ? 'everywhere' : 'or is equal everywhere'}`;
    }
    case 'equal':
      return 'no threshold: no difference found';
    case 'several':
      return `no threshold: the winner changes ${crossings.length} times`;
  }
}

function summary(pairs: readonly ComparedTypes[], turns: number): Section {
  const lines = pairs.map((pair) => {
    const ratios = pair.result.ratios.map(({ ratio }) => 1 / ratio);
    const said = `${typeName(pair.other)} is ${extent(ratios)} times as fast`;
    const [other, base] = [typeName(pair.other), typeName(pair.base)];
    return `- ${other} against ${base}, ${circumstancesText(pair)}: ${ruleText(pair)}. ${said}.`;
  });
  const few = turns < FEWEST_TURNS ? ` With fewer than ${FEWEST_TURNS} turns no type can be called a winner.` : '';
  return {
    title: 'Thresholds',
    text: `What a threshold would have to be on this machine, for square layers.${few}\n\n${lines.join('\n')}`,
  };
}

const times = (ratio: number): string => ratio.toFixed(2);

/** `1.17 to 2.21` */
const extent = (ratios: readonly number[]): string =>
  [...new Set([Math.min(...ratios), Math.max(...ratios)].map(times))].join(' to ');

/** The table of the report from which Lanewise comes, for Q8_0 against F32 or the first two types. */
function ranges(measured: Crossover, all: readonly Circumstances[]): Section[] {
  const { base, other } = mainTypes(measured);
  return all.flatMap((circumstances): Section[] => {
    const pair = pairOf(measured, base, other, circumstances);
    if (!pair) return [];
    const title = `${typeName(other)} against ${typeName(base)}: ${circumstancesText(circumstances)}`;
    return [{ title, table: rangeTable(measured, pair) }];
  });
}

const pairOf = (
  { pairs }: Pick<Crossover, 'pairs'>,
  base: Storage,
  other: Storage | undefined,
  { rows, from }: Circumstances,
): ComparedTypes | undefined =>
  pairs.find((pair) => pair.base === base && pair.other === other && pair.rows === rows && pair.from === from);

/** The first type, and Q8_0 or the second one. */
function mainTypes({ options: { types } }: Pick<Crossover, 'options'>): { base: Storage; other: Storage } {
  const [base, second] = types;
  return { base: base!, other: base !== 'q8_0' && types.includes('q8_0') ? 'q8_0' : second! };
}

/** Neighbouring dimensions with the same verdict share a row. */
export function rangeTable(measured: Pick<Crossover, 'times' | 'options'>, pair: ComparedTypes): Table {
  const { base, other, result } = pair;
  const verdict = ({ winner, ratio }: RatioAt): string => {
    if (winner === 'neither') return 'no sure difference';
    const [name, share] = winner === 'other' ? [other, ratio] : [base, 1 / ratio];
    return `${typeName(name)} ${share <= MUCH_FASTER ? 'much ' : ''}faster`;
  };
  const groups: RatioAt[][] = [];
  for (const ratio of result.ratios) {
    const last = groups.at(-1);
    if (last && verdict(last[0]!) === verdict(ratio)) last.push(ratio);
    else groups.push([ratio]);
  }
  const rows = groups.map((group, index): Cell[] => {
    const [first, next] = [group[0]!.dim, groups[index + 1]?.[0]?.dim];
    const range =
      groups.length === 1
        ? `all (${first} to ${group.at(-1)!.dim})`
        : index === 0
          ? `< ${next}`
          : next === undefined
            ? `≥ ${first}`
            : `${first} to < ${next}`;
    const ratios = group.map(({ ratio }) => (group[0]!.winner === 'base' ? ratio : 1 / ratio));
    const factor = `${extent(ratios)} times`;
    const within = (dim: number): boolean => (index === 0 || dim >= first) && (next === undefined || dim < next);
    return [range, `${verdict(group[0]!)} (${factor})`, examplesOf(measured, pair, within)];
  });
  return {
    columns: [{ name: 'Dimension range' }, { name: `${typeName(other)} vs ${typeName(base)}` }, { name: 'Examples' }],
    rows,
  };
}

/** Layers of models whose larger dimension is in a range, with their own measured ratios. */
function examplesOf(
  { times: all, options }: Pick<Crossover, 'times' | 'options'>,
  pair: ComparedTypes,
  within: (dim: number) => boolean,
): string {
  return options.models
    .flatMap((layers) => {
      const { model, name, shape } = layers;
      if (!within(Math.max(...shape))) return [];
      const [a, b] = [pair.base, pair.other].map((type) => timesOf(all, type, shape, pair));
      const ratio = a && b ? `, ${times(median(a.ms.map((ms, turn) => ms / b.ms[turn]!)))} times` : '';
      return [`${model} ${name} (${shapeText(shape)}${ratio})`];
    })
    .join('; ');
}

function crossingsSection(pairs: readonly ComparedTypes[]): Section {
  const rows = pairs.map((pair): Cell[] => {
    const { base, other, result, rows: count, from } = pair;
    const crossing = result.crossings.length === 1 ? result.crossings[0] : undefined;
    return [
      from,
      count,
      typeName(base),
      typeName(other),
      crossing ? Math.round(crossing.dim) : null,
      crossing ? `${Math.round(crossing.low)} to ${Math.round(crossing.high)}` : null,
      crossing ? crossing.between.join(' to ') : null,
      ruleText(pair),
    ];
  });
  const names = ['From', 'Rows', 'Type', 'Against', 'Crossing', 'Interval (95 %)', 'Winners differ surely', 'Rule'];
  return {
    title: 'Crossings',
    text: 'The interval is that of the measurement: the estimate is interpolated between dimensions where the winners differ surely.',
    table: { columns: names.map((name) => ({ name })), rows },
  };
}

/** GB/s of weights for one row, GOP/s for more. */
const rateOf = ({ bytes, operations, rows }: ShapeTimes, ms: number): number =>
  (rows === 1 ? bytes : operations) / ms / 1e6;
const rateUnit = ({ rows }: Circumstances): string => (rows === 1 ? 'GB/s' : 'GOP/s');

function squareSections(measured: Crossover, circumstances: Circumstances): Section[] {
  const { options, times: all } = measured;
  const { types, dims } = options;
  const of = (type: Storage, dim: number): ShapeTimes | undefined => timesOf(all, type, [dim, dim], circumstances);
  const used = types.filter((type) => dims.some((dim) => of(type, dim)));
  if (used.length === 0) return [];
  const where = circumstancesText(circumstances);
  const rows = dims.flatMap((dim): Cell[][] => {
    if (!used.some((type) => of(type, dim))) return [];
    const fastest = fastestOf(all, types, [dim, dim], circumstances);
    return [[dim, ...used.flatMap((type) => timeCells(of(type, dim))), fastest ? typeName(fastest.type) : null]];
  });
  const [base] = types;
  const title = `Square layers: ${where}`;
  const ratio: Chart = {
    kind: 'line',
    title: `Time relative to ${typeName(base!)}, ${where}`,
    x: { name: 'Dimension', scale: 'log' },
    y: { name: `Time / time of ${typeName(base!)}`, scale: 'log' },
    series: used.flatMap((other): Series[] => {
      const pair = pairOf(measured, base!, other, circumstances);
      if (!pair) return [];
      const points = pair.result.ratios.map(({ dim, ratio: y, low, high }) => ({ x: dim, y, low, high }));
      return [{ name: typeName(other), points }];
    }),
    lines: [{ name: typeName(base!), y: 1 }],
  };
  const rate: Chart = {
    kind: 'line',
    title: `Rate, ${where}`,
    x: { name: 'Dimension', scale: 'log' },
    y: { name: circumstances.rows === 1 ? 'Weights read' : 'Operations', unit: rateUnit(circumstances) },
    series: used.map((type) => ({
      name: typeName(type),
      points: dims.flatMap((dim) => {
        const found = of(type, dim);
        if (!found) return [];
        const one = found.ms.map(() => 1);
        const { ratio: ms, low, high } = bootstrapChange(one, found.ms);
        return [{ x: dim, y: rateOf(found, ms), low: rateOf(found, high), high: rateOf(found, low) }];
      }),
    })),
  };
  const columns = [{ name: 'Dimension' }, ...timeColumns(used, circumstances), { name: 'Fastest' }];
  return [{ title, table: { columns, rows }, chart: rate }, ...(ratio.series.length > 0 ? [{ chart: ratio }] : [])];
}

const timeColumns = (types: readonly Storage[], circumstances: Circumstances): Column[] =>
  types.flatMap((type): Column[] => [
    { name: typeName(type), unit: 'ms', align: 'right' },
    { name: typeName(type), unit: rateUnit(circumstances), align: 'right' },
  ]);

const timeCells = (found: ShapeTimes | undefined): [Cell, Cell] =>
  found ? [median(found.ms), rateOf(found, median(found.ms))] : [null, null];

function modelSections(measured: Crossover): Section[] {
  const { models, shapes } = measured.options;
  const names = [...new Set(models.map(({ model }) => model))];
  const further = shapes.map((shape): ModelLayers => ({ model: '', name: '', shape, count: 1, output: false }));
  return [
    ...(further.length > 0 ? layerSections(measured, 'Further shapes', further) : []),
    ...names.flatMap((name) => {
      const layers = models.filter(({ model }) => model === name);
      return [...layerSections(measured, `Layers of ${name}`, layers), ...ruleSections(measured, name, layers)];
    }),
  ];
}

function layerSections(measured: Crossover, title: string, layers: readonly ModelLayers[]): Section[] {
  const { times: all, options } = measured;
  const { types } = options;
  return circumstancesOf(options).flatMap((circumstances): Section[] => {
    const measuredLayers = layers.filter(({ shape }) => fastestOf(all, types, shape, circumstances));
    if (measuredLayers.length === 0) return [];
    const used = types.filter((type) => measuredLayers.some(({ shape }) => timesOf(all, type, shape, circumstances)));
    const rows = measuredLayers.map(({ name, shape, count }): Cell[] => [
      name,
      count,
      shapeText(shape),
      ...used.flatMap((type) => timeCells(timesOf(all, type, shape, circumstances))),
      typeName(fastestOf(all, types, shape, circumstances)!.type),
    ]);
    const columns = [
      { name: 'Layer' },
      { name: 'Count' },
      { name: 'Dimensions' },
      ...timeColumns(used, circumstances),
      { name: 'Fastest' },
    ];
    return [{ title: `${title}: ${circumstancesText(circumstances)}`, table: { columns, rows } }];
  });
}

/** What the linear layers of a model take under each rule. */
function ruleSections(measured: Crossover, model: string, all: readonly ModelLayers[]): Section[] {
  const { options } = measured;
  const { types } = options;
  // A prompt computes the output layer for one row, which may not be measured.
  const layers = options.rows.includes(1) ? all : all.filter(({ output }) => !output);
  const from = options.from.includes('memory') ? 'memory' : options.from[0]!;
  const { base, other } = mainTypes(measured);
  return options.rows.map((rows): Section => {
    const circumstances = { rows, from };
    const results = rulesOf(measured, base, other, circumstances).map((rule) =>
      ruleTime(measured, layers, rule, base, circumstances),
    );
    const best = Math.min(...results.flatMap(({ ms }) => ms ?? []));
    const total = layers.reduce((sum, { count }) => sum + count, 0);
    const what = rows === 1 ? 'a decode step' : `a chunk of ${rows} rows`;
    return {
      title: `${model}: linear layers of ${what} under each rule`,
      text:
        `Times of layers added up, from ${from}` +
        `${rows > 1 ? (layers === all ? '; the output layer is computed for one row' : ', without the output layer') : ''}. Layers that cannot have a type keep ${typeName(base)}.`,
      table: {
        columns: [
          { name: 'Rule' },
          { name: `Not ${typeName(base)}` },
          { name: 'Weights', unit: 'MB' },
          { name: 'Time', unit: 'ms' },
          { name: 'Relative to the best' },
        ],
        rows: results.map(({ rule, converted, bytes, ms }) => [
          rule,
          `${formatNumber(converted)} of ${formatNumber(total)}`,
          bytes / 1e6,
          ms,
          ms === null ? null : `${times(ms / best)} times`,
        ]),
      },
    };
  });

  function rulesOf({ times: all }: Crossover, base: Storage, other: Storage, circumstances: Circumstances): Rule[] {
    const found = pairOf(measured, base, other, circumstances)?.result.rule;
    const here = (rule: ThresholdRule | undefined): Rule[] =>
      rule?.kind === 'from'
        ? [thresholdRule(`${other}:min-dim=${Math.round(rule.dim)} (found here)`, base, other, rule.dim)]
        : [];
    return [
      ...types.map((type): Rule => ({ name: `all ${type}`, typeOf: () => type })),
      ...(types.length > 1
        ? [thresholdRule(`${other}:min-dim=${USUAL_THRESHOLD}`, base, other, USUAL_THRESHOLD), ...here(found)]
        : []),
      {
        name: 'the fastest type of each layer',
        typeOf: (shape, where) => fastestOf(all, types, shape, where)?.type ?? base,
      },
    ];
  }
}
