/** `lanewise bench crossover`: which storage type is fastest by dimension, on this machine. */
import { availableParallelism, loadavg } from 'node:os';
import { basename } from 'node:path';
import { lastLevelCache } from '../measure/cache-size.ts';
import { layersOf, type ModelLayers, measureCrossover } from '../measure/crossover.ts';
import { parseDims, parsePlaces, parseRows, parseShapes, parseTypes } from '../measure/crossover-options.ts';
import { crossoverReport } from '../measure/crossover-report.ts';
import { knownLayers } from '../measure/known-layers.ts';
import { describeMachine, machineRows } from '../measure/machine.ts';
import { DEFAULT_TURNS, timeShapes } from '../measure/shapes.ts';
import { describeModel, measureMachine } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { renderHtml } from '../report/html.ts';
import { renderMarkdown } from '../report/markdown.ts';
import { type CommandMaker, revision, withMachine } from './command-flags.ts';
import { checkWritable, writeText } from './files.ts';
import { modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { commandLine, inFlags, type MachineFlags, machineOptions, numberOf, print, say } from './terminal.ts';

interface CrossoverFlags extends MachineFlags {
  types: string;
  dims: string;
  shapes?: string;
  rows: string;
  from: string;
  repeat?: string;
  revision?: string;
  json?: boolean;
  html?: string;
}

export function addCrossoverCommand(command: CommandMaker, finish: (code: number) => void): void {
  withMachine(
    command(
      'crossover',
      'Which storage type is fastest, by the dimension of a layer, and what a threshold would have to be.',
      [
        'lanewise bench crossover',
        'lanewise bench crossover --types f32,q8_0 --dims 64..50k --rows 1 --html crossover.html',
        'lanewise bench crossover ./gpt2 --types f32,f16,q8_0,q4_k --dims 256..4096 --from memory --json',
      ],
    ),
  )
    .argument('[models...]', 'models whose layers are measured too (default: layers of gpt2 and gemma3-1b)')
    .option(...revision)
    .option('--types <list>', 'storage types; all are compared with each other', 'f32,f16,q8_0,q4_0,q4_k')
    .option('--dims <list>', 'dimensions of square layers: 768,1024 or 64..50k', '64..8192')
    .option('--shapes <list>', 'further layers, OUTxIN: 3072x768,50257x768')
    .option('--rows <list>', 'rows of a forward: 1 as in a decode step, more as in a prompt', '1,128')
    .option('--from <list>', 'where the weights are: memory, cache', 'memory,cache')
    .option('--repeat <n>', `turns (default: ${DEFAULT_TURNS})`)
    .option('--html <file>', 'also as one page with charts, which works without a network')
    .option('--json', 'one JSON object instead of Markdown: times of every turn, crossings, the report')
    .action(async (models, flags) => finish(await crossoverCommand(models, flags)));
}

async function crossoverCommand(given: readonly string[], flags: CrossoverFlags): Promise<number> {
  const progress = createProgress(process.stderr, 'measure', { unit: 'measurements' });
  try {
    const { html } = flags;
    if (html !== undefined) await checkWritable(`--html ${html}`, html);
    const machine = machineOptions(flags);
    const options = {
      types: parseTypes(flags.types),
      dims: parseDims(flags.dims),
      shapes: flags.shapes === undefined ? [] : parseShapes(flags.shapes),
      rows: parseRows(flags.rows),
      from: parsePlaces(flags.from),
      turns: numberOf('--repeat', flags.repeat),
      ...machine,
    };
    warnOfLoad();
    const models = given.length > 0 ? await layersIn(given, flags) : knownLayers;
    const measured = await measureCrossover(
      { ...options, models, onProgress: (done, total) => progress.update(done, total) },
      timeShapes,
    );
    progress.end();
    const { threads, vectorBits, readAll } = await measureMachine(machine.threads, { ...machine, turns: 3 });
    const cache = lastLevelCache();
    const rows = [
      ...machineRows(describeMachine(), { threads, vectorBits, read: [readAll.median] }),
      ...(cache === undefined ? [] : [['Last-level cache', formatBytes(cache)] as const]),
    ];
    const report = crossoverReport(measured, { command: commandLine(), machine: rows });
    if (html !== undefined) await writeText(html, renderHtml(report));
    if (flags.json) await print(`${JSON.stringify({ ...measured, report })}\n`);
    else await print(renderMarkdown(report));
    return 0;
  } catch (error) {
    throw inFlags(error);
  } finally {
    progress.end();
  }
}

/** Warns if other programs use the cores. The load is always 0 on Windows. */
function warnOfLoad(): void {
  const load = loadavg()[0]!;
  const cores = availableParallelism();
  if (load > cores / 2) say(`warning: other programs use the cores (load ${load.toFixed(1)} on ${cores}): times vary`);
}

async function layersIn(given: readonly string[], flags: CrossoverFlags): Promise<ModelLayers[]> {
  const found = given.map(async (name) => layersOf(basename(name), await describeModel(await modelPath(name, flags))));
  return (await Promise.all(found)).flat();
}
