/** What tables of options are made of: how a value is checked, what it is where it was left out, its flag at the command line. */
import { OptionError } from '../errors.ts';

/** Where a value was given. */
export interface OptionPlace {
  /** What the option is called there: `topP` in the library, `--top-p` at the command line. */
  readonly name: string;
  /** Vocabulary size, to check token ids. */
  readonly vocab: number | undefined;
  /** Whether one answer is wanted, not several. */
  readonly single: boolean;
}

/** The option's flag: `--top-p <p>`. */
export interface Flag {
  /** How its text becomes a value: a number, a switch without a text, texts or token ids given one by one. */
  readonly kind: 'number' | 'switch' | 'texts' | 'ids';
  /** What help calls the value. */
  readonly value?: string;
  /** Where it is not that of the option, in camel case. */
  readonly name?: string;
  /** Where the command line has another default. */
  readonly standard?: string;
}

export interface Option<T> {
  /** @param given neither undefined nor null @throws OptionError */
  read(given: unknown, place: OptionPlace): T;
  /** Its value where it was left out. */
  otherwise(): T;
  /** What it does, in one line. */
  readonly help: string;
  /** What it may be. */
  readonly expected: string;
  /** Its default in words, where it has one to tell. */
  readonly standard?: string;
  readonly flag?: Flag;
  /** Only programs can give it: a function, a signal, whether errors are thrown. */
  readonly programs?: boolean;
}

type Texts = Pick<Option<unknown>, 'help' | 'standard' | 'flag' | 'programs'>;

interface NumberOptions extends Texts {
  readonly otherwise: number | (() => number);
  readonly expected: string;
  /** Written so that NaN fails it. */
  readonly accepts: (x: number) => boolean;
  /** What -1 and Infinity mean, where they mean that there is no limit. */
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

/** The values of a table's options. */
export type Settings<T> = { readonly [K in keyof T]: T[K] extends Option<infer V> ? V : never };

/** How options are checked: all of it optional. */
export interface OptionRules<Options> extends Partial<Omit<OptionPlace, 'name'>> {
  /** What an option left out means. */
  readonly defaults?: Options;
  /** What an option is called where it was given. */
  readonly name?: (option: string) => string;
}

/** Undefined and null count as left out. @throws OptionError naming the option and what it accepts */
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
