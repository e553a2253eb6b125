/** `--explain`: every decision of a load and a request, on stderr. */
import type { Command } from 'commander';
import type { Explanation } from '../node.ts';
import { renderTable } from './table.ts';
import { flagOf, say } from './terminal.ts';

export interface ExplainFlag {
  explain?: boolean;
}

export const withExplain = (command: Command): Command =>
  command.option(
    '--explain',
    'every decision, where it comes from and why, on stderr (docs/doctor.md); with --json as JSON',
  );

/** Writes the decisions to stderr if the flag asks for them: a table, or with `--json` one object in one line. */
export function sayExplanations(
  explain: () => readonly Explanation[],
  { explain: asked = false, json = false }: ExplainFlag & { readonly json?: boolean | undefined },
): void {
  if (!asked) return;
  const explanations = explain().map(inWordsOfFlags);
  if (json) say(JSON.stringify({ explain: explanations }));
  else say(renderExplanations(explanations));
}

/** `option topK` becomes `--top-k`; an option that the command itself sets has no flag. */
export function inWordsOfFlags<E extends Explanation>(explanation: E): E {
  const [, option] = /^option (.+)$/.exec(explanation.from) ?? [];
  return option === undefined ? explanation : { ...explanation, from: flagOf(option) ?? 'lanewise' };
}

export const valueText = (value: Explanation['value']): string => (value === null ? 'none' : `${value}`);

/** A table with the columns Key, Value, From and Why. */
export const renderExplanations = (explanations: readonly Explanation[]): string =>
  renderTable(
    ['Key', 'Value', 'From', 'Why'].map((title) => ({ title })),
    explanations.map(({ key, value, from, why = '' }) => [key, valueText(value), from, why]),
  );
