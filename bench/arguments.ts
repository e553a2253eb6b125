/** Arguments of a bench: mistakes are told in one line, and --help shows the comment that the bench's file begins with. */
import { readFileSync } from 'node:fs';
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** As `parseArgs`; ends the process for --help, and with code 2 for what it does not take. */
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

/** Ends the process with one line on what was expected. */
export function refuse(expected: string): never {
  console.error(`error: ${expected} (--help tells what there is)`);
  process.exit(2);
}

/** A flag's value as a whole number from `least` on. */
export function countOf(flag: string, text: string, least = 1): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < least)
    refuse(`${flag} must be a whole number from ${least} on, got ${text}`);
  return count;
}

/** A flag's value as several of them, between commas. */
export const countsOf = (flag: string, text: string): number[] => text.split(',').map((part) => countOf(flag, part));

/** A flag's value as some of the known names, between commas. */
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
