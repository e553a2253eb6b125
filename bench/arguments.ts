/** Command line arguments of benches. Errors are one line; --help prints the first comment of the bench's file. */
import { readFileSync } from 'node:fs';
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Like `parseArgs`. Ends the process after --help, and with code 2 for invalid arguments. */
export function argumentsOf<T extends ParseArgsConfig>(config: T): ReturnType<typeof parseArgs<T>> {
  if (process.argv.includes('--help')) {
    console.log(help());
    process.exit(0);
  }
  try {
    return parseArgs(config);
  } catch (error) {
    refuse((error as Error).message);
  }
}

/** Prints what was expected and ends the process. */
export function refuse(expected: string): never {
  console.error(`error: ${expected} (--help lists the options)`);
  process.exit(2);
}

/** Parses the value of a flag as an integer of at least `least`. */
export function countOf(flag: string, text: string, least = 1): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < least)
    refuse(`${flag} must be a whole number from ${least} on, got ${text}`);
  return count;
}

/** Parses several such integers, separated by commas. */
export const countsOf = (flag: string, text: string): number[] => text.split(',').map((part) => countOf(flag, part));

/** Parses a comma-separated list of known names. */
export function namesOf<Name extends string>(flag: string, text: string, known: readonly Name[]): Name[] {
  const names = text.split(',');
  const unknown = names.find((name) => !(known as readonly string[]).includes(name));
  if (unknown !== undefined) refuse(`${flag} takes ${known.join(', ')}, not ${unknown}`);
  return names as Name[];
}

function help(): string {
  const comment = /\/\*\*([\s\S]*?)\*\//.exec(readFileSync(process.argv[1]!, 'utf8'));
  return (comment?.[1] ?? '').replaceAll(/^ *\* ?/gm, '').trim();
}
