/** `lanewise eval compare`: where two models part, by layer and step. */
import { writeFile } from 'node:fs/promises';
import type { Model } from '../engine/model.ts';
import {
  type Comparison,
  compareModels,
  type OpenModel,
  type Parting,
  type StepDifference,
} from '../evaluation/compare.ts';
import { comparisonReport, cosineText, nameOf, short, verdictOf } from '../evaluation/compare-report.ts';
import type { Difference } from '../evaluation/row-difference.ts';
import { describeMachine, machineRows } from '../measure/machine.ts';
import { type Column, renderTable } from '../report/aligned-table.ts';
import { renderHtml } from '../report/html.ts';
import { openSide, type PairFlags, type SideFlags, secondFlags, type TextFlags } from './evaluate.ts';
import { checkWritable, readText, unwritable } from './files.ts';
import { createProgress } from './progress.ts';
import { commandLine, inFlags, numberOf, print, say } from './terminal.ts';

export interface CompareFlags extends PairFlags, TextFlags {
  tolerance?: string;
  html?: string;
}

export async function compareCommand(
  a: string | undefined,
  b: string | undefined,
  flags: CompareFlags,
): Promise<number> {
  try {
    const { html } = flags;
    if (html !== undefined) await checkWritable(`--html ${html}`, html);
    const text = await readText('--text', flags.text);
    const sides = { a: '', b: '' };
    let use: Pick<Model, 'threads' | 'vectorBits'> = { threads: 1, vectorBits: undefined };
    const opener =
      (side: 'a' | 'b', positional: string | undefined, own: SideFlags): OpenModel =>
      async (taps) => {
        const model = await openSide(positional, own, flags, { taps });
        sides[side] = sideText(model, own);
        if (side === 'a') use = { threads: model.threads, vectorBits: model.vectorBits };
        return model;
      };
    const progress = createProgress(process.stderr, 'compare', { unit: 'tokens' });
    const comparison = await compareModels(opener('a', a, flags), opener('b', b ?? a, secondFlags(flags)), text, {
      tolerance: numberOf('--tolerance', flags.tolerance),
      maxTokens: numberOf('--max-tokens', flags.maxTokens),
      onProgress: (done, total) => progress.update(done, total),
    }).finally(() => progress.end());
    if (flags.json) await print(`${JSON.stringify(comparisonJson(comparison, sides))}\n`);
    else await print(comparisonText(comparison, sides));
    if (html !== undefined) {
      const machine = machineRows(describeMachine(), { ...use, read: [] });
      const report = comparisonReport(comparison, sides, { command: commandLine(), machine });
      await writeFile(html, renderHtml(report)).catch((error) => {
        throw unwritable(`--html ${html}`, error);
      });
      say(`wrote ${html}`);
    }
    return comparison.parting ? 1 : 0;
  } catch (error) {
    throw inFlags(error);
  }
}

/** `gpt2: quantize none, kv-cache f32, wasm, 2 threads` */
const sideText = ({ name, quantize, threads }: Model, { kvCache = 'f32', backend = 'wasm' }: SideFlags): string =>
  `${name}: quantize ${quantize}, kv-cache ${kvCache}, ${backend}, ${threads} thread${threads === 1 ? '' : 's'}`;

function comparisonText(comparison: Comparison, { a, b }: { a: string; b: string }): string {
  const { layers, steps, parting } = comparison;
  const below = steps.length > 0 ? `\n${differenceTable('step', steps, stepName)}` : '';
  const note =
    parting && steps.length === 0 ? '\nThe models compute this part by other steps, which are not compared.\n' : '';
  return `A: ${a}\nB: ${b}\n${verdictOf(comparison)}\n\n${differenceTable('after', layers, nameOf)}${below}${note}`;
}

const stepName = ({ step, work }: StepDifference): string => `${step} ${work}`;

function differenceTable<D extends Difference>(title: string, rows: readonly D[], name: (row: D) => string): string {
  const right = (title: string): Column => ({ title, align: 'right' });
  return renderTable(
    [{ title }, right('error'), right('worst row'), right('cosine'), right('first token beyond')],
    rows.map((row) => [
      name(row),
      short(row.error),
      short(row.worst),
      cosineText(row.cosine),
      row.first === undefined ? '' : `${row.first}`,
    ]),
  );
}

function comparisonJson(
  { tokens, tolerance, layers, steps, parting, origin, growth }: Comparison,
  { a, b }: { a: string; b: string },
): object {
  return {
    a,
    b,
    tokens,
    tolerance,
    parting: parting && placeJson(parting),
    origin: origin && placeJson(origin),
    growth,
    layers,
    steps,
  };
}

const placeJson = ({ layer, step, token }: Parting): object => ({
  scope: layer.scope,
  rows: layer.name,
  step: step?.step ?? null,
  work: step?.work ?? null,
  token,
});
