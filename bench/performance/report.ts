/** Reads reports, and writes the page of all reports. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Roofs } from '../../src/backend/wasm/measuring/roof.ts';
import { renderTable } from '../../src/cli/table.ts';
import type { PeerReport } from '../peers/compare.ts';
import type { PeerRow } from '../peers/comparison.ts';
import { goalRows, kernelCells } from './goals.ts';
import { type Bar, drawPlot, type Plot } from './plot.ts';
import type { Report } from './report-format.ts';
import { sharesTable } from './shares.ts';

/** @throws Error for a file that is not a report */
export function readReport(file: string): Report {
  let report: Partial<Report>;
  try {
    report = JSON.parse(readFileSync(file, 'utf8')) as Partial<Report>;
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message}`);
  }
  if (report?.format !== 'lanewise-performance' || report.version !== 1)
    throw new Error(`${file}: expected a report of bench:performance, version 1`);
  return report as Report;
}

const begin = '<!-- measured: written by npm run bench:performance, not by hand -->';
const end = '<!-- end of measured -->';

/**
 * Writes the plots of all reports in `docs`/performance, and their sections between the markers of
 * `docs`/performance.md.
 */
export function writePage(docs: string): void {
  const folder = path.join(docs, 'performance');
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  const sections = files.sort().map((file) => section(readReport(path.join(folder, file)), folder));
  const page = path.join(docs, 'performance.md');
  const old = existsSync(page)
    ? readFileSync(page, 'utf8')
    : `# Performance\n\nLanewise beside node-llama-cpp and beside what each machine can do.\n\n${begin}\n${end}\n`;
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${page}: expected the lines ${begin} and ${end}`);
  writeFileSync(page, `${old.slice(0, from)}${begin}\n\n${sections.join('\n')}\n${old.slice(to)}`);
}

function section(report: Report, folder: string): string {
  const plots = plotsOf(report).map(([name, plot]) => {
    const file = `${report.name}-${name}.svg`;
    writeFileSync(path.join(folder, file), drawPlot(plot));
    return `![${plot.title}](performance/${file})\n`;
  });
  return [
    `## ${report.name}\n`,
    `${describe(report)}\n`,
    goalTable(report),
    ...plots,
    ...sharesTable(report),
    ...kernelTable(report),
  ].join('\n');
}

function describe({ date, quick, machine, parts }: Report): string {
  const { cpu, cores, caches, memory_bytes, node, v8, vnni, wide, commit } = machine;
  const lines = [
    `${cpu}, ${cores} cores, ${caches === '' ? '' : `${caches}, `}${(memory_bytes / 2 ** 30).toFixed(0)} GiB; ${vnni ? 'with' : 'without'} AVX-VNNI as kernels see it, ${wide ? 256 : 128}-bit kernels.`,
    `Node ${node}, V8 ${v8}; ${date.slice(0, 10)}${commit === '' ? '' : `, commit ${commit}`}${quick ? ', a quick run: few samples' : ''}.`,
  ];
  const roofs = parts.roofs?.result as Roofs | undefined;
  const giga = (rate: { median: number; worst: number; best: number }, unit: string): string =>
    `${(rate.median / 1e9).toFixed(1)} ${unit} (${(rate.worst / 1e9).toFixed(1)} - ${(rate.best / 1e9).toFixed(1)})`;
  if (roofs)
    lines.push(
      `Roofs with ${roofs.threads} threads, median (worst - best): memory read ${giga(roofs.readAll, 'GB/s')}, by one thread ${giga(roofs.readOne, 'GB/s')}; tile loop f32 ${giga(roofs.f32, 'GFLOP/s')}, int8 ${giga(roofs.q8, 'GOP/s')}.`,
    );
  return lines.join('\n');
}

function goalTable(report: Report): string {
  return renderTable(
    ['Work', 'Goal', 'Measured', 'Spread', 'Of roof', ''].map((title) => ({ title })),
    goalRows(report).map(({ work, goal, measured, spread, of_roof, met }) => [
      work,
      goal,
      measured,
      spread,
      of_roof,
      met === undefined ? '' : met ? 'met' : '**missed**',
    ]),
  );
}

function kernelTable(report: Report): string[] {
  const cells = kernelCells(report);
  const titles = ['Kernel on all threads', '256 bits, of its roof', '128 bits, of its roof'];
  return cells.length === 0
    ? []
    : [
        renderTable(
          titles.map((title) => ({ title })),
          cells,
        ),
      ];
}

/** Plots with the name for their file. Plots without bars are left out. */
function plotsOf({ name, parts }: Report): [string, Plot][] {
  const rows = Object.entries(parts)
    .filter(([part, { result }]) => part.startsWith('peers ') && result !== undefined)
    .flatMap(([, { result }]) => (result as PeerReport).comparisons.flatMap((comparison) => comparison.rows));
  const bars = (phase: PeerRow['phase'], way: PeerRow['way']): Bar[] =>
    rows
      .filter((row) => row.phase === phase && row.way === way)
      .map(({ shape, storage, rate, of_roof, lanewise }) => {
        const value = rate! / 1e9;
        const at = (ms: number): number => (value * lanewise.median) / ms;
        const [low, high] = [at(lanewise.high), at(lanewise.low)];
        return { group: shape, label: storage.toUpperCase(), value, low, high, roof: value / of_roof! };
      });
  const caption = (roof: string): string => `Frame: ${roof}, measured in turns with it. Line: half of the samples.`;
  const plots: [string, Plot][] = [
    [
      'decode',
      {
        title: `Decoding, one sequence: weights, keys and values read (${name})`,
        caption: caption('how fast the memory is read'),
        unit: 'GB/s',
        bars: bars('decode', 'generate'),
      },
    ],
    [
      'prefill',
      {
        title: `Prompts of 512 tokens: multiplications and additions (${name})`,
        caption: caption('the best tile loop, int8 or, for float weights, f32'),
        unit: 'GOP/s',
        bars: bars('prefill', 'evaluate'),
      },
    ],
  ];
  return plots.filter(([, plot]) => plot.bars.length > 0);
}
