/**
 * Measures everything that docs/performance.md reports, and writes this machine's section and plots:
 *
 *   npm run bench:performance -- [--name "zen4-2-cores"] [--quick] [--only PART]...
 *   npm run bench:performance -- --render [FILE]
 *
 * Results are saved to docs/performance/NAME.json after every part. --only measures some parts again (`peers gpt2`: all
 * whose names begin with it) and keeps the others. --render writes the page from saved results (FILE is copied there
 * first). --docs names another folder than docs/. The row of a failed part shows its error. Nothing else should run
 * meanwhile.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import path from 'node:path';
import { argumentsOf, refuse } from './arguments.ts';
import { describeMachine, type Machine } from './performance/machine.ts';
import { type Part, parts, runPart } from './performance/parts.ts';
import { readReport, writePage } from './performance/report.ts';
import type { Report } from './performance/report-format.ts';

const { values, positionals } = argumentsOf({
  allowPositionals: true,
  options: {
    name: { type: 'string' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    render: { type: 'boolean', default: false },
    docs: { type: 'string', default: path.join(import.meta.dirname, '..', 'docs') },
  },
});
const folder = path.join(values.docs, 'performance');
mkdirSync(folder, { recursive: true });
const fileOf = (name: string): string => path.join(folder, `${name}.json`);
const store = (report: Report): void => {
  const partial = `${fileOf(report.name)}.partial`;
  writeFileSync(partial, `${JSON.stringify(report, null, 1)}\n`);
  renameSync(partial, fileOf(report.name));
};

/** `amd-epyc-2-cores` */
const nameOf = ({ cpu, cores }: Machine): string =>
  `${cpu
    .toLowerCase()
    .replace(/\((r|tm)\)|processor|\d+-core|cpu.*/g, ' ')
    .match(/[a-z0-9]+/g)
    ?.join('-')}-${cores}-cores`;

/** Parts whose names begin with one of the words. */
function chosen(words: readonly string[] | undefined): readonly Part[] {
  if (words === undefined) return parts;
  for (const word of words) {
    if (!parts.some(({ name }) => name.startsWith(word)))
      refuse(`--only takes the beginning of a name: ${parts.map(({ name }) => name).join(', ')}`);
  }
  return parts.filter(({ name }) => words.some((word) => name.startsWith(word)));
}

const minutes = (seconds: number): string =>
  seconds < 90 ? `${seconds.toFixed(0)} s` : `${(seconds / 60).toFixed(0)} min`;

async function measure(): Promise<void> {
  const { quick, only } = values;
  const machine = describeMachine();
  const name = values.name ?? nameOf(machine);
  const todo = chosen(only);
  const load = loadavg()[0]!;
  if (load > 0.5) console.error(`other work is running (load ${load.toFixed(1)}): these times will say little`);
  const stored = only === undefined ? {} : earlier(name);
  let report: Report = {
    format: 'lanewise-performance',
    version: 1,
    name,
    date: new Date().toISOString(),
    quick,
    machine,
    parts: stored,
  };
  const forecast = (part: Part): number => (quick ? part.quickSeconds : part.seconds);
  let [spent, foreseen] = [0, 0];
  for (const [index, part] of todo.entries()) {
    const left = todo.slice(index).reduce((sum, other) => sum + forecast(other), 0);
    const pace = foreseen === 0 ? 1 : spent / foreseen;
    console.error(`[${index + 1} of ${todo.length}] ${part.name}; about ${minutes(left * pace)} left`);
    const result = await runPart(part, quick);
    spent += result.seconds;
    foreseen += forecast(part);
    if (result.error !== undefined) console.error(`${part.name} failed: ${result.error}`);
    report = { ...report, parts: { ...report.parts, [part.name]: result } };
    store(report);
  }
  console.error(`${fileOf(name)}: ${todo.length} parts in ${minutes(spent)}`);
}

function earlier(name: string): Report['parts'] {
  try {
    return readReport(fileOf(name)).parts;
  } catch {
    return {};
  }
}

if (!values.render) await measure();
for (const file of positionals) store(readReport(file));
writePage(values.docs);
