/** What a caller may ask of the choice of the next token, and the ranges it is held to. */
import { OptionError } from '../errors.ts';
import type { Constraint, LogitsProcessor } from './constraint.ts';
import { randomSeed } from './random.ts';

export interface SamplingOptions {
  /** 0: always the most probable token. Otherwise logits are divided by it. */
  temperature?: number;
  /** Only the k most probable tokens; 0, or -1: all. */
  topK?: number;
  /** Only the most probable tokens that together reach this probability. */
  topP?: number;
  /** Only tokens at least this probable relative to the most probable one. */
  minP?: number;
  /** Logits of tokens of prompt and text so far: divided by it where positive, multiplied where negative. */
  repetitionPenalty?: number;
  /** Subtracted once from the logits of tokens generated so far. */
  presencePenalty?: number;
  /** Subtracted from the logit of a token for every time it was generated. */
  frequencyPenalty?: number;
  /** The same seed gives the same text. Left out, or -1: drawn anew, and found in the settings. */
  seed?: number;
  /** Added to the logits of these token ids; -Infinity forbids a token. */
  logitBias?: ReadonlyMap<number, number> | Readonly<Record<string, number>>;
  /** How many of the most probable tokens to report beside the chosen one. */
  logprobs?: number;
  /**
   * Which tokens may come next: applied before everything else. It keeps the state of one text; where options are used for
   * several, give a function that makes one for each. Only where the model runs in this thread (`inline`).
   */
  constraint?: Constraint | (() => Constraint);
  /** Changes logits as it likes, after the constraint and before bias and penalties. Only where the model runs in this thread. */
  logitsProcessor?: LogitsProcessor;
}

export interface SamplingSettings {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly seed: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly logprobs: number;
  readonly constraint: Constraint | (() => Constraint) | undefined;
  readonly logitsProcessor: LogitsProcessor | undefined;
}

/** How options are checked: all of it optional. */
export interface OptionRules<Options> {
  /** Vocabulary size, to check token ids. */
  vocab?: number;
  /** What an option left out means. */
  defaults?: Options;
  /** What an option is called where it was given: `topP` in the library, `--top-p` in the CLI. */
  name?: (option: string) => string;
}

const MAX_LOGPROBS = 20;
const MAX_BIASES = 1024;

/** @throws OptionError naming the option and its range */
export function validateSampling(
  options: SamplingOptions = {},
  rules: OptionRules<SamplingOptions> = {},
): SamplingSettings {
  const read = optionReader(options, rules);
  return {
    temperature: read.number('temperature', 1, (x) => x >= 0 && x < Infinity, 'a number >= 0'),
    topK: read.unlimited('topK')
      ? 0
      : read.integer('topK', 0, 0, Number.MAX_SAFE_INTEGER, 'an integer >= 0 (0, or -1: off)'),
    topP: read.number('topP', 1, (x) => x > 0 && x <= 1, 'in (0, 1]'),
    minP: read.number('minP', 0, (x) => x >= 0 && x <= 1, 'in [0, 1]'),
    repetitionPenalty: read.number('repetitionPenalty', 1, (x) => x > 0 && x < Infinity, 'a number > 0'),
    presencePenalty: read.number('presencePenalty', 0, (x) => x >= -2 && x <= 2, 'in [-2, 2]'),
    frequencyPenalty: read.number('frequencyPenalty', 0, (x) => x >= -2 && x <= 2, 'in [-2, 2]'),
    seed:
      read.given('seed') && read.value('seed') !== -1
        ? read.integer('seed', 0, 0, Number.MAX_SAFE_INTEGER, 'an integer from 0 to 2^53 - 1 (-1: drawn anew)')
        : randomSeed(),
    logitBias: readBias(read.value('logitBias'), read.name('logitBias'), rules.vocab),
    logprobs: read.integer('logprobs', 0, 0, MAX_LOGPROBS, `an integer from 0 to ${MAX_LOGPROBS}`),
    constraint: readConstraint(read.value('constraint'), read.name('constraint')),
    logitsProcessor: readProcessor(read.value('logitsProcessor'), read.name('logitsProcessor')),
  };
}

function readConstraint(given: unknown, name: string): SamplingSettings['constraint'] {
  if (given === undefined || typeof given === 'function') return given as SamplingSettings['constraint'];
  const { allowed, accept } = Object(given) as Partial<Constraint>;
  if (typeof allowed !== 'function' || typeof accept !== 'function')
    throw new OptionError(name, 'an object with the methods allowed and accept, or a function that makes one', given);
  return given as Constraint;
}

function readProcessor(given: unknown, name: string): LogitsProcessor | undefined {
  if (given === undefined || typeof given === 'function') return given as LogitsProcessor | undefined;
  throw new OptionError(name, 'a function', given);
}

/** Reads options one by one; undefined and null count as left out, every comparison is written so that NaN fails it. */
export function optionReader<Options extends object>(options: Options, rules: OptionRules<Options>) {
  const name = rules.name ?? ((option: string) => option);
  type Key = keyof Options & string;
  const value = (option: Key): unknown => options[option] ?? rules.defaults?.[option];
  const number = (option: Key, otherwise: number, accepts: (x: number) => boolean, expected: string): number => {
    const found = value(option) ?? otherwise;
    if (typeof found !== 'number' || !accepts(found)) throw new OptionError(name(option), expected, found);
    return found;
  };
  return {
    value,
    number,
    name,
    given: (option: Key): boolean => value(option) !== undefined,
    /** Whether a limit is none, as people say it. */
    unlimited: (option: Key): boolean => value(option) === -1 || value(option) === Number.POSITIVE_INFINITY,
    integer: (option: Key, otherwise: number, least: number, most: number, expected: string): number =>
      number(option, otherwise, (x) => Number.isInteger(x) && x >= least && x <= most, expected),
  };
}

function readBias(given: unknown, name: string, vocab: number | undefined): ReadonlyMap<number, number> {
  if (given === undefined) return new Map();
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new OptionError(name, 'a map from token id to bias', given);
  const entries = given instanceof Map ? [...given] : Object.entries(given);
  if (entries.length > MAX_BIASES)
    throw new OptionError(name, `a map of at most ${MAX_BIASES} token ids`, entries.length);
  const last = (vocab ?? 2 ** 31) - 1;
  const result = new Map<number, number>();
  for (const [key, bias] of entries) {
    const id = typeof key === 'string' && /^\d+$/.test(key) ? Number(key) : key;
    if (!Number.isInteger(id) || !(id >= 0 && id <= last))
      throw new OptionError(name, `a map from token ids (0 to ${last})`, key);
    if (typeof bias !== 'number' || !((bias >= -100 && bias <= 100) || bias === Number.NEGATIVE_INFINITY))
      throw new OptionError(`${name}[${id}]`, 'in [-100, 100] or -Infinity', bias);
    result.set(id, bias);
  }
  return result;
}
