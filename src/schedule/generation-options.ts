/** The options of a generation, checked in one place for library and CLI. */
import { OptionError } from '../errors.ts';
import {
  checked,
  flag,
  integer,
  number,
  type OptionRules,
  readOptions,
  type Settings,
  type Table,
} from '../sampling/option-kinds.ts';
import { type SamplingOptions, samplingTable } from '../sampling/sampling-options.ts';
import { MAX_STOP_LENGTH, MAX_STOPS } from './stop.ts';

export interface GenerateOptions extends SamplingOptions {
  /**
   * Largest number of tokens to generate (finish reason `length`); a full context ends a text too (`contextLength`).
   * Default 256; -1: as many as the context holds.
   */
  maxTokens?: number;
  /**
   * Milliseconds after which the text ends (finish reason `timeout`). They count from its start, without waiting in the
   * queue.
   */
  timeoutMs?: number;
  /**
   * Time, as of `Date.now()`, at which the text ends (finish reason `timeout`), even if the request still waits.
   */
  deadline?: number;
  /** Whether a timeout throws an error after its `done` event. Default false. */
  throwOnTimeout?: boolean;
  /** Strings that end the text and are not part of it. They also match control tokens that the text does not show. */
  stop?: string | readonly string[];
  /** Ids of further end tokens, also effective with `ignoreEos`. */
  stopTokenIds?: readonly number[];
  /** Whether to continue after the end tokens of the model, and to show control tokens. */
  ignoreEos?: boolean;
  /**
   * Whether to drop the oldest turns of a conversation that does not fit in the context, until it takes at most half of it.
   * System messages are kept (`usage.droppedMessages`). Default false: an error.
   */
  contextShift?: boolean;
  /**
   * Largest number of draft tokens checked in one forward, from the text so far and from the draft model, if there is one;
   * 0: none. The result has the same bits. Default: 0 without a draft model, else 16.
   */
  speculate?: number;
  /**
   * Number of answers per prompt, in batches. They share the keys and values of the prompt. The first has the seed of the
   * request, the others have seeds derived from it. Default 1.
   */
  n?: number;
  /** Requests with lower numbers are served first and may pause others. An integer; default 0. */
  priority?: number;
  /** Whom the request belongs to; keys take turns when prompts are computed. Default ''. */
  fairnessKey?: string;
  /**
   * Only requests of the same key share what the cache has computed: neither their tokens nor their times tell of others'
   * texts. Default '', for all.
   */
  cacheKey?: string;
  /** Whether to time forwards by phase (`timings.steps`). Default false. */
  timing?: boolean;
  /** Ends the generation when aborted, with a `done` event with finish reason `aborted` and the text so far. */
  signal?: AbortSignal;
  /** Whether an abort throws the signal's reason after the `done` event. Default true. */
  throwOnAbort?: boolean;
}

const DEFAULT_MAX_TOKENS = 256;
const MAX_SPECULATE = 32;
const MAX_SAMPLES = 128;
const MAX_PRIORITY = 2 ** 31 - 1;
const MAX_KEY_LENGTH = 256;
const MAX_STOP_TOKENS = 1024;

const samples = integer({
  otherwise: 1,
  from: 1,
  to: MAX_SAMPLES,
  help: 'answers to one prompt, in batches',
  standard: '1',
});

/** Options whose defaults depend on whether the model has a draft model. */
const guesses = integer({
  otherwise: 0,
  from: 0,
  to: MAX_SPECULATE,
  help: 'guess at most this many tokens ahead, from the text so far and by the draft model; the result stays the same',
  standard: '0, with a draft model 16',
  flag: { kind: 'number', value: '<n>' },
});

/** The options, from which checks, defaults, flags, help and documentation are derived. */
export const generateTable = {
  maxTokens: integer({
    otherwise: DEFAULT_MAX_TOKENS,
    unlimited: Number.MAX_SAFE_INTEGER,
    from: 0,
    to: Number.MAX_SAFE_INTEGER,
    expected: 'an integer >= 0 (-1: no limit)',
    help: 'most tokens to generate',
    standard: `${DEFAULT_MAX_TOKENS}; -1: as many as the context holds`,
    flag: { kind: 'number', value: '<n>' },
  }),
  ...samplingTable,
  stop: checked<readonly string[]>({
    otherwise: [],
    expected: `a string or an array of at most ${MAX_STOPS} strings of 1 to ${MAX_STOP_LENGTH} characters`,
    read: (given, { name }) => readStops(given, name),
    help: 'end before this text; may be given again',
    flag: { kind: 'texts', value: '<text>' },
  }),
  stopTokenIds: checked<ReadonlySet<number>>({
    otherwise: new Set(),
    expected: `an array of at most ${MAX_STOP_TOKENS} token ids`,
    read: (given, { name, vocab }) => readIds(given, name, vocab),
    help: 'end with this token too; may be given again',
    flag: { kind: 'ids', value: '<id>', name: 'stopTokenId' },
  }),
  ignoreEos: flag(false, { help: 'continue after end tokens of the model', flag: { kind: 'switch' } }),
  timeoutMs: number({
    otherwise: Number.POSITIVE_INFINITY,
    unlimited: Number.POSITIVE_INFINITY,
    accepts: (x) => x > 0 && x < Infinity,
    expected: 'a number of milliseconds > 0 (-1: none)',
    help: 'end after this many milliseconds, with the text so far',
    flag: { kind: 'number', value: '<n>' },
  }),
  deadline: number({
    otherwise: Number.POSITIVE_INFINITY,
    accepts: (x) => x > 0 && x <= Number.MAX_SAFE_INTEGER,
    expected: 'a time in milliseconds, as Date.now()',
    help: 'end at this time, with the text so far, even if the request still waits',
  }),
  contextShift: flag(false, {
    help: 'drop the oldest turns of a conversation that does not fit in the context',
    flag: { kind: 'switch' },
  }),
  speculate: { ...guesses, otherwise: (): number | undefined => undefined },
  n: {
    ...samples,
    read(given, place) {
      if (place.single && given !== 1)
        throw new OptionError(place.name, '1 (generateBatch gives several answers)', given);
      return samples.read(given, place);
    },
  },
  priority: integer({
    otherwise: 0,
    from: -MAX_PRIORITY,
    to: MAX_PRIORITY,
    help: 'lower numbers are served first and may make others pause',
    standard: '0',
  }),
  fairnessKey: checked<string>({
    otherwise: '',
    expected: `a string of at most ${MAX_KEY_LENGTH} characters`,
    read: (given, { name }) => readKey(given, name),
    help: 'whom the request belongs to; keys take turns when prompts are read',
  }),
  cacheKey: checked<string>({
    otherwise: '',
    expected: `a string of at most ${MAX_KEY_LENGTH} characters`,
    read(given, { name }) {
      const key = readKey(given, name);
      if (/\p{Surrogate}/u.test(key)) throw new OptionError(name, 'well-formed Unicode', given);
      return key;
    },
    help: 'only requests of the same key share what the cache has computed',
  }),
  timing: flag(false, { help: 'whether the forwards are timed by phase' }),
  signal: checked<AbortSignal | undefined>({
    otherwise: undefined,
    expected: 'an AbortSignal',
    read(given, { name }) {
      if (!(given instanceof AbortSignal)) throw new OptionError(name, 'an AbortSignal', given);
      return given;
    },
    help: 'ends the generation when aborted',
    programs: true,
  }),
  throwOnAbort: flag(true, { help: "whether an abort throws the signal's reason", standard: 'true', programs: true }),
  throwOnTimeout: flag(false, { help: 'whether a timeout throws an error', programs: true }),
} satisfies Table<GenerateOptions>;

export type GenerateSettings = Settings<typeof generateTable>;

export type OptionName = keyof GenerateOptions;

export const optionNames = Object.keys(generateTable) as readonly OptionName[];

/** Options of an earlier version that now have another name and unit. */
export const renamedOptions: ReadonlyMap<string, { readonly option: keyof GenerateOptions; readonly unit: string }> =
  new Map([['timeout', { option: 'timeoutMs', unit: 'milliseconds' }]]);

/** @param rules `single`: for one answer @throws OptionError naming the option and its allowed values */
export function validateGenerate(
  options: GenerateOptions = {},
  rules: OptionRules<GenerateOptions> = {},
): GenerateSettings {
  if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
  const { name = (option: string) => option } = rules;
  for (const [key, value] of Object.entries(options)) {
    if (Object.hasOwn(generateTable, key)) continue;
    const renamed = renamedOptions.get(key);
    if (renamed) throw new OptionError(name(key), `given as ${name(renamed.option)}, in ${renamed.unit}`, value);
    const known = optionNames.map(name).join(', ');
    throw new OptionError(name(key), `left out (no such option; known: ${known})`, value);
  }
  return readOptions(generateTable, options, rules);
}

function readKey(given: unknown, name: string): string {
  if (typeof given === 'string' && given.length <= MAX_KEY_LENGTH) return given;
  throw new OptionError(name, `a string of at most ${MAX_KEY_LENGTH} characters`, given);
}

function readStops(given: unknown, name: string): readonly string[] {
  const stops: unknown = typeof given === 'string' ? [given] : given;
  if (!Array.isArray(stops)) throw new OptionError(name, 'a string or an array of strings', given);
  if (stops.length > MAX_STOPS) throw new OptionError(name, `at most ${MAX_STOPS} strings`, stops.length);
  for (const stop of stops) {
    if (typeof stop !== 'string' || stop.length === 0 || stop.length > MAX_STOP_LENGTH)
      throw new OptionError(name, `made of strings of 1 to ${MAX_STOP_LENGTH} characters`, stop);
    if (/\p{Surrogate}/u.test(stop)) throw new OptionError(name, 'well-formed Unicode', stop);
  }
  return [...stops];
}

function readIds(given: unknown, name: string, vocab: number | undefined): ReadonlySet<number> {
  if (!Array.isArray(given)) throw new OptionError(name, 'an array of token ids', given);
  if (given.length > MAX_STOP_TOKENS) throw new OptionError(name, `at most ${MAX_STOP_TOKENS} token ids`, given.length);
  const last = (vocab ?? 2 ** 31) - 1;
  for (const id of given) {
    if (!(Number.isInteger(id) && id >= 0 && id <= last))
      throw new OptionError(name, `made of integers from 0 to ${last}`, id);
  }
  return new Set(given);
}
