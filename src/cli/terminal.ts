/** Helpers of all commands: output streams, one-line errors, numbers in option values. */

import type { LoadOptions } from '../engine/options.ts';
import { LanewiseError, OptionError } from '../errors.ts';
import { createProgress } from './progress.ts';

/** An error in the command line itself. */
export class UsageError extends LanewiseError {
  constructor(message: string) {
    super('Usage', message);
  }
}

export const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** Writes to stdout and waits until the write is done: a pipe may be slow. */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => process.stdout.write(text, (error) => (error ? reject(error) : resolve())));
}

/** Prints `error: ...`, with the stack if the log level asks for it. */
export function reportError(error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  say(`error: ${text}`);
  if (process.env.LANEWISE_LOG?.includes('debug') && error instanceof Error) say(error.stack ?? '');
}

/** Whether an error is one that users can fix; others are bugs and printed with their stack. */
export const isExpected = (error: unknown): boolean =>
  error instanceof LanewiseError || (error instanceof Error && 'code' in error) || error instanceof DOMException;

/** The command line, as a shell takes it. */
export const commandLine = (): string =>
  ['lanewise', ...process.argv.slice(2)]
    .map((word) => (/^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ');

/** Parses the number of an option. @throws OptionError */
export function numberOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isNaN(value)) throw new OptionError(option, 'a number', text);
  return value;
}

const byteUnits = new Map([
  ['', 1],
  ...['k', 'm', 'g', 't'].flatMap((letter, i) => [
    [letter, 1000 ** (i + 1)] as const,
    [`${letter}b`, 1000 ** (i + 1)] as const,
    [`${letter}ib`, 1024 ** (i + 1)] as const,
  ]),
]);

/** Parses a number of bytes such as `800000000`, `800MB` or `1.5GiB`. @throws OptionError */
export function bytesOf(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, count, unit] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text) ?? [];
  const factor = byteUnits.get(unit?.toLowerCase() ?? '?');
  if (count === undefined || factor === undefined)
    throw new OptionError(option, 'a number of bytes such as 800000000, 800MB or 1.5GiB', text);
  return Math.floor(Number(count) * factor);
}

/** Options of all commands that load a model. */
export interface MachineFlags {
  threads?: string;
  revectorize?: boolean;
}

/** @throws OptionError */
export const machineOptions = ({ threads, revectorize }: MachineFlags): Pick<LoadOptions, keyof MachineFlags> => ({
  threads: numberOf('--threads', threads),
  revectorize,
});

/** Parses token ids such as `1,2,3`. @throws OptionError */
export function tokenIdsOf(text: string, option = '--token-ids'): number[] {
  const ids = text.split(',').map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : Number.NaN));
  if (ids.some((id) => !Number.isSafeInteger(id)))
    throw new OptionError(option, 'integers between commas, such as 1,2,3', text);
  return ids;
}

/**
 * Adds progress and warnings on the terminal to load options. Default: the engine runs in this thread, as most commands have
 * nothing else to do.
 */
export function reportingLoad(options: LoadOptions): { options: LoadOptions; end: () => void } {
  const progress = createProgress(process.stderr, 'load');
  return {
    options: {
      inline: true,
      ...options,
      onProgress: (done, total) => progress.update(done, total),
      onWarning: (text) => say(`warning: ${text}`),
    },
    end: () => progress.end(),
  };
}

/** `topP` -> `--top-p`, `draft.quantize` -> `--draft-quantize` */
export const flagName = (option: string): string =>
  `--${option.replaceAll('.', '-').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Flags of the running command, such as `--top-p`. */
let spoken: ReadonlySet<string> | undefined;

/** Sets the flags that errors may name. */
export function speakOf(options: readonly string[]): void {
  spoken = new Set(options);
}

const isSpoken = (flag: string): boolean => spoken?.has(flag) ?? true;

/** Flags for options of the library, if their names differ. */
const otherNames: Readonly<Record<string, readonly string[]>> = {
  quantize: ['--policy', '--policies'],
  text: ['--prompt'],
  texts: ['--text'],
  prompts: ['--batch-file'],
};

/** Advice in the library's errors, its wording for commands that have the flag, and for commands that do not. */
const advice: readonly (readonly [words: string, flag: string, inFlags: string, without: string])[] = [
  ['shorten it or raise contextLength', '--context-length', 'shorten it or raise --context-length', 'shorten it'],
  ['a prompt, or a chat template', '--max-tokens', 'a prompt, or --chat-template FILE', 'a prompt'],
  ['that match include and exclude', '--include', 'that match --include and --exclude', 'that are requested'],
  ['shorten it, or ask to truncate', '--truncate', 'shorten it, or give --truncate', 'shorten it'],
];

/** The flag of the running command for an option of the library; undefined if it has none. */
export const flagOf = (option: string): string | undefined =>
  [flagName(option), ...(otherNames[option] ?? [])].find(isSpoken);

/** Rewrites an error of the library to name flags instead of options. */
export function inFlags(error: unknown): unknown {
  if (!(error instanceof LanewiseError)) return error;
  for (const [words, flag, inWords, without] of advice) {
    if (error.message.includes(words))
      return new LanewiseError(error.code, error.message.replace(words, isSpoken(flag) ? inWords : without));
  }
  if (!(error instanceof OptionError) || !/^[a-zA-Z.]+$/.test(error.option)) return error;
  const name = flagOf(error.option);
  return name === undefined ? error : new UsageError(error.message.replace(error.option, name));
}
