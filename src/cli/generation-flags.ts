/** The flags of a generation, as the table of its options has them. */
import type { Command } from 'commander';
import type { Flag } from '../sampling/option-kinds.ts';
import { type GenerateOptions, generateTable, type OptionName, optionNames } from '../schedule/generation-options.ts';
import { flagName, numberOf, tokenIdsOf } from './terminal.ts';

/** Options as commander returns them, by the names of their flags. */
export type SamplingFlags = Partial<Record<OptionName | 'stopTokenId', string | string[] | boolean>>;

interface Flagged {
  readonly option: OptionName;
  readonly flag: Flag;
  /** Name of the flag in camel case. */
  readonly name: keyof SamplingFlags;
}

const flagged: readonly Flagged[] = optionNames.flatMap((option) => {
  const { flag } = generateTable[option];
  return flag === undefined ? [] : [{ option, flag, name: (flag.name ?? option) as keyof SamplingFlags }];
});

type NumberOption = { [K in OptionName]-?: Required<GenerateOptions>[K] extends number ? K : never }[OptionName];

/** Names in the library of the options that are numbers. */
export const numbers = flagged
  .filter(({ flag }) => flag.kind === 'number')
  .map(({ option }) => option) as readonly NumberOption[];

/** Collects the values of a repeatable option. (A variadic option would take MODEL as a value too.) */
export const collected = (value: string, before: readonly string[] = []): string[] => [...before, value];

export function addGenerationFlags(command: Command): Command {
  for (const { option, flag, name } of flagged) {
    const { help, standard = flag.standard } = generateTable[option];
    const text = standard === undefined ? help : `${help} (default: ${flag.standard ?? standard})`;
    const spelled = [flagName(name), flag.value].filter((part) => part !== undefined).join(' ');
    if (flag.kind === 'texts' || flag.kind === 'ids') command.option(spelled, text, collected);
    else command.option(spelled, text);
  }
  return command;
}

/** @throws OptionError */
export function generateOptions(flags: SamplingFlags): GenerateOptions {
  const options: Record<string, unknown> = {};
  for (const { option, flag, name } of flagged) {
    const given = flags[name];
    if (given === undefined) continue;
    options[option] = fromFlag(given, flag.kind, flagName(name));
  }
  return options;
}

function fromFlag(given: string | string[] | boolean, kind: Flag['kind'], name: string): unknown {
  if (kind === 'number') return numberOf(name, given as string);
  return kind === 'ids' ? (given as string[]).flatMap((text) => tokenIdsOf(text, name)) : given;
}
