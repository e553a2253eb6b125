/** Building blocks of option tables: check of a value, default, help and command line flag. */
import { OptionError } from '../errors.ts';

/** Context in which an option was given. */
export interface OptionPlace {
  /** Name of the option there: `topP` in the library, `--top-p` at the command line. */
  readonly name: string;
  /** Vocabulary size, to check token ids. */
  readonly vocab: number | undefined;
  /** Whether the call returns a single answer. */
  readonly single: boolean;
}

/** The option's flag: `--top-p <p>`. */
export interface Flag {
  /** How its text is parsed: a number, a switch without text, or repeated texts or token ids. */
  readonly kind: 'number' | 'switch' | 'texts' | 'ids';
  /** Placeholder of the value in the help. */
  readonly value?: string;
  /** Name of the flag in camel case, if it differs from that of the option. */
  readonly name?: string;
  /** Default of the command line, if it differs from the library's. */
  readonly standard?: string;
}

export interface Option<T> {
  /** @param given neither undefined nor null @throws OptionError */
  read(given: unknown, place: OptionPlace): T;
  /** Value of an omitted option. */
  otherwise(): T;
  /** Effect of the option, in one line. */
  readonly help: string;
  /** Allowed values, for errors. */
  readonly expected: string;
  /** Description of the default, if there is one. */
  readonly standard?: string;
  readonly flag?: Flag;
  /** Whether it is available only in the library: functions, signals, whether errors are thrown. */
  readonly programs?: boolean;
}

type Texts = Pick<Option<unknown>, 'help' | 'standard' | 'flag' | 'programs'>;

interface NumberOptions extends Texts {
  readonly otherwise: number | (() => number);
  readonly expected: string;
  /** Must be false for NaN. */
  readonly accepts: (x: number) => boolean;
  /** Value for -1 and Infinity, if these mean no limit. */
  readonly unlimited?: number;
}

export function number({ otherwise, expected, accepts, unlimited, ...texts }: NumberOptions): Option<number> {
  return {
    ...texts,
    expected,
    otherwise: () => (typeof otherwise === 'function' ? otherwise() : otherwise),
    read(given, { name }) {
      if (unlimited !== undefined && (given === -1 || given === Number.POSITIVE_INFINITY)) return unlimited;
      if (typeof given !== 'number' || !accepts(given)) throw new OptionError(name, expected, given);
      return given;
    },
  };
}

interface IntegerOptions extends Omit<NumberOptions, 'accepts' | 'expected'> {
  readonly from: number;
  readonly to: number;
  readonly expected?: string;
}

export function integer({ from, to, expected, ...rest }: IntegerOptions): Option<number> {
  return number({
    ...rest,
    expected: expected ?? `an integer from ${from} to ${to}`,
    accepts: (x) => Number.isInteger(x) && x >= from && x <= to,
  });
}

export const flag = (otherwise: boolean, texts: Texts): Option<boolean> => ({
  ...texts,
  expected: 'true or false',
  otherwise: () => otherwise,
  read(given, { name }) {
    if (typeof given !== 'boolean') throw new OptionError(name, 'true or false', given);
    return given;
  },
});

export interface CheckedOptions<T> extends Texts {
  readonly otherwise: T;
  readonly expected: string;
  readonly read: Option<T>['read'];
}

/** An option of any other type. */
export const checked = <T>({ otherwise, ...rest }: CheckedOptions<T>): Option<T> => ({
  ...rest,
  otherwise: () => otherwise,
});

export type Table<Options> = { readonly [K in keyof Required<Options>]: Option<unknown> };

/** Values of the options of a table. */
export type Settings<T> = { readonly [K in keyof T]: T[K] extends Option<infer V> ? V : never };

/** Settings of `readOptions`, all optional. */
export interface OptionRules<Options> extends Partial<Omit<OptionPlace, 'name'>> {
  /** Values of omitted options. */
  readonly defaults?: Options;
  /** Name of an option in errors. */
  readonly name?: (option: string) => string;
}

/**
 * Checks options by a table; undefined and null mean omitted.
 * @throws OptionError naming the option and its allowed values
 */
export function readOptions<T extends Readonly<Record<string, Option<unknown>>>>(
  table: T,
  options: object,
  rules: OptionRules<object>,
): Settings<T> {
  const { name = (option) => option, vocab, single = false } = rules;
  const [given, defaults] = [options, rules.defaults ?? {}] as Readonly<Record<string, unknown>>[];
  const entries = Object.entries(table).map(([key, option]) => {
    const value = given![key] ?? defaults![key] ?? undefined;
    return [key, value === undefined ? option.otherwise() : option.read(value, { name: name(key), vocab, single })];
  });
  return Object.fromEntries(entries) as Settings<T>;
}
