/** Which storage type is fastest by dimension: planted times, and the report that they must give. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { OptionError } from '../../src/errors.ts';
import {
  type CrossoverOptions,
  fastestOf,
  layersOf,
  type ModelLayers,
  measureCrossover,
  ruleTime,
  thresholdRule,
} from '../../src/measure/crossover.ts';
import { parseDims, parsePlaces, parseRows, parseShapes, parseTypes } from '../../src/measure/crossover-options.ts';
import { crossoverReport, rangeTable, ruleText } from '../../src/measure/crossover-report.ts';
import { describeModel } from '../../src/node.ts';
import { type Storage, storageBytes } from '../../src/quant/storage.ts';
import type { Table } from '../../src/report/report.ts';
import { plantedTimes } from './planted-times.ts';

/** Reads 40 GB/s; quantized inputs cost so much that Q8_0 equals F32 at a dimension of 1000. */
const RATE = 40e6;
const OVERHEAD = (1000 ** 2 * (4 - 34 / 32)) / RATE;
const msOf = (type: Storage, [out, inputs]: readonly [number, number], rows: number): number =>
  (rows * (out * storageBytes(type, inputs))) / RATE + (type === 'q8_0' ? rows * OVERHEAD : 0);

const layers: ModelLayers[] = [
  { model: 'small', name: 'attention q', shape: [768, 768], count: 4, output: false },
  { model: 'small', name: 'ffn up', shape: [3072, 768], count: 2, output: false },
  { model: 'small', name: 'output', shape: [8192, 768], count: 1, output: true },
];
const options: CrossoverOptions = {
  types: ['f32', 'q8_0'],
  dims: parseDims('64..4096'),
  shapes: [],
  models: layers,
  rows: [1, 128],
  from: ['memory'],
};
const frame = { command: 'lanewise bench crossover', machine: [['Processor', 'a processor']] as const };

test('the planted dimension is found, and the report says what a threshold would have to be', async () => {
  const measured = await measureCrossover(options, plantedTimes(msOf));
  const [pair] = measured.pairs;
  assert.ok(pair);
  const { rule } = pair.result;
  assert.ok(rule.kind === 'from' && rule.dim > 950 && rule.dim < 1050, JSON.stringify(rule));
  assert.match(ruleText(pair), /^Q8_0 from \d+ \(\d+ to \d+\), F32 below: q8_0:min-dim=\d+$/);
  const table = rangeTable(measured, pair);
  assert.deepEqual(
    table.columns.map(({ name }) => name),
    ['Dimension range', 'Q8_0 vs F32', 'Examples'],
  );
  const [first, last] = [table.rows[0]!, table.rows.at(-1)!];
  assert.match(`${first[0]}`, /^< /);
  assert.match(`${first[1]}`, /^F32 (much )?faster/);
  assert.match(`${last[0]}`, /^≥ /);
  assert.match(`${last[1]}`, /^Q8_0 much faster/);
  // The ratios of the examples are their own: 768 x 768 is 0.59 of 1000 x 1000.
  const own = msOf('f32', [768, 768], 1) / msOf('q8_0', [768, 768], 1);
  const examples = table.rows.map((row) => `${row[2]}`).join('; ');
  const said = Number(/attention q \(768 → 768, ([\d.]+) times\)/.exec(examples)?.[1]);
  assert.ok(Math.abs(said - own) < 0.02, `${said} is not ${own}`);
});

test('rules are compared by what the layers of a model take', async () => {
  const measured = await measureCrossover(options, plantedTimes(msOf, 0));
  const where = { rows: 1, from: 'memory' } as const;
  const under = (rule: Parameters<typeof ruleTime>[2]) => ruleTime(measured, layers, rule, 'f32', where);
  const expected = (typeAt: (dim: number) => Storage): number =>
    layers.reduce((sum, { shape, count }) => sum + count * msOf(typeAt(Math.max(...shape)), shape, 1), 0);
  const threshold = under(thresholdRule('q8_0:min-dim=1024', 'f32', 'q8_0', 1024));
  assert.ok(Math.abs(threshold.ms! - expected((dim) => (dim >= 1024 ? 'q8_0' : 'f32'))) < 1e-9);
  assert.equal(threshold.converted, 3);
  assert.equal(threshold.bytes, 4 * 768 * 768 * 4 + (2 * 3072 + 8192) * storageBytes('q8_0', 768));
  const fastest = under({
    name: 'fastest',
    typeOf: (shape, at) => fastestOf(measured.times, options.types, shape, at)!.type,
  });
  for (const { ms } of [threshold, under({ name: 'all', typeOf: () => 'q8_0' })]) assert.ok(fastest.ms! <= ms!);
  // The output layer of a prompt is computed for one row.
  const prompt = ruleTime(measured, layers, { name: 'all', typeOf: () => 'f32' }, 'f32', { rows: 128, from: 'memory' });
  const rows = 128 * (4 * msOf('f32', [768, 768], 1) + 2 * msOf('f32', [3072, 768], 1));
  assert.ok(Math.abs(prompt.ms! - rows - msOf('f32', [8192, 768], 1)) < 1e-9);
});

test('a type that wins everywhere needs no threshold, and the report says so', async () => {
  const plain = plantedTimes((type, [out, inputs], rows) => (rows * out * storageBytes(type, inputs)) / RATE);
  const measured = await measureCrossover({ ...options, types: ['f32', 'q8_0', 'q4_k'] }, plain);
  const report = crossoverReport(measured, frame);
  assert.match(report.sections[0]!.text!, /Q8_0 against F32, one row, from memory: no threshold: Q8_0 wins everywhere/);
  const pair = measured.pairs.find(({ base, other }) => base === 'q8_0' && other === 'q4_k')!;
  assert.equal(ruleText(pair), 'no threshold: Q4_K wins everywhere');
  // Rows of 64 values are no whole blocks of Q4_K.
  assert.ok(pair.result.ratios.every(({ dim }) => dim % 256 === 0));
  const tables = report.sections.flatMap(({ table }): Table[] => (table ? [table] : []));
  for (const { columns, rows } of tables) for (const row of rows) assert.equal(row.length, columns.length);
  assert.equal(tables.filter(({ columns }) => columns[0]!.name === 'Rule').length, 2);
});

test('layers of a model are counted by use, those of equal role and shape together', async () => {
  const folder = join(import.meta.dirname, '..', '..', 'models', 'lanewise-stories');
  const found = layersOf('stories', await describeModel(folder));
  assert.deepEqual(
    found.map(({ name, shape, count, output }) => [name, shape.join('x'), count, output]),
    [
      ['output', '4096x256', 1, true],
      ['attention q/k/v/o', '256x256', 24, false],
      ['ffn up', '1024x256', 6, false],
      ['ffn down', '256x1024', 6, false],
    ],
  );
});

test('lists of the command line', () => {
  assert.deepEqual(parseDims('64..512,50k'), [64, 96, 128, 192, 256, 384, 512, 50000]);
  const large = parseDims('1000..50k');
  // Ranges have whole blocks of every type from 1024 on.
  assert.ok(large.slice(1).every((dim) => dim % 256 === 0) && large.at(-1) === 49920 && large[0] === 992, `${large}`);
  assert.deepEqual(parseTypes('F32, q8_0,q8_0'), ['f32', 'q8_0']);
  assert.deepEqual(parseShapes('3072x768'), [[3072, 768]]);
  assert.deepEqual(parseRows('128,1'), [128, 1]);
  assert.deepEqual(parsePlaces('cache'), ['cache']);
  const bad: [() => unknown, RegExp][] = [
    [() => parseDims('512..64'), /dims must be dimensions/],
    [() => parseDims('0'), /dims/],
    [() => parseDims('2000k'), /dims/],
    [() => parseTypes('q9'), /types must be among f32, .*got "q9"/],
    [() => parseShapes('768'), /shapes must be OUTxIN/],
    [() => parseShapes('0x768'), /shapes/],
    [() => parseRows('0'), /rows/],
    [() => parsePlaces('disk'), /from/],
  ];
  for (const [parse, message] of bad)
    assert.throws(parse, (error: unknown) => error instanceof OptionError && message.test(error.message));
});
