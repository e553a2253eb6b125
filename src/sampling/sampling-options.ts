/** Options of sampling, and their allowed ranges. */
import { OptionError } from '../errors.ts';
import type { Constraint, LogitsProcessor } from './constraint.ts';
import {
  checked,
  flag,
  integer,
  number,
  type OptionRules,
  readOptions,
  type Settings,
  type Table,
} from './option-kinds.ts';
import { randomSeed } from './random.ts';

export interface SamplingOptions {
  /**
   * 0: always the most probable token. Otherwise logits are divided by it. Default of this and of topK, topP, minP and
   * repetitionPenalty: what the model's files say (`model.samplingDefaults`), else 0.8 and no cuts.
   */
  temperature?: number;
  /** Only the k most probable tokens; 0, or -1: all. */
  topK?: number;
  /** Only the most probable tokens that together reach this probability. */
  topP?: number;
  /** Only tokens at least this probable relative to the most probable one. */
  minP?: number;
  /** For tokens of prompt and text so far: positive logits are divided by it, negative ones multiplied. */
  repetitionPenalty?: number;
  /** Subtracted once from the logits of tokens generated so far. */
  presencePenalty?: number;
  /** Subtracted from the logit of a token for every time it was generated. */
  frequencyPenalty?: number;
  /** The same seed gives the same text. Omitted, or -1: a random seed, which the result names. */
  seed?: number;
  /** Added to the logits of these token ids; -Infinity forbids a token. */
  logitBias?: ReadonlyMap<number, number> | Readonly<Record<string, number>>;
  /** Number of most probable tokens to report with the chosen one. */
  logprobs?: number;
  /** Whether tokens come with how they were chosen (`inspection`): a millisecond and more each. Default false. */
  inspect?: boolean;
  /**
   * Decides which tokens are allowed next, before anything else changes the logits. It holds the state of one text: for
   * several texts, give a function that makes one for each. Only with `inline`.
   */
  constraint?: Constraint | (() => Constraint);
  /** Changes the logits, after the constraint and before bias and penalties. Only with `inline`. */
  logitsProcessor?: LogitsProcessor;
}

/** Used where neither the caller nor the model's files give a value. */
export const librarySampling = { temperature: 0.8, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 } as const;

const MAX_LOGPROBS = 20;
const MAX_BIASES = 1024;
const MOST = Number.MAX_SAFE_INTEGER;

const penalty = (help: string) =>
  number({
    otherwise: 0,
    accepts: (x) => x >= -2 && x <= 2,
    expected: 'in [-2, 2]',
    help,
    flag: { kind: 'number', value: '<x>' },
  });

const seed = integer({
  otherwise: randomSeed,
  from: 0,
  to: MOST,
  expected: 'an integer from 0 to 2^53 - 1 (-1: random)',
  help: 'the same seed gives the same text everywhere',
  standard: 'random',
  flag: { kind: 'number', value: '<n>' },
});

/** The options, from which checks, defaults, flags, help and documentation are derived. */
export const samplingTable = {
  temperature: number({
    otherwise: librarySampling.temperature,
    accepts: (x) => x >= 0 && x < Infinity,
    expected: 'a number >= 0',
    help: '0: always the most probable token',
    standard: `the model's, else ${librarySampling.temperature}`,
    flag: { kind: 'number', value: '<t>' },
  }),
  topK: integer({
    otherwise: librarySampling.topK,
    unlimited: 0,
    from: 0,
    to: MOST,
    expected: 'an integer >= 0 (0, or -1: off)',
    help: 'only the k most probable tokens',
    standard: "the model's, else off",
    flag: { kind: 'number', value: '<k>' },
  }),
  topP: number({
    otherwise: librarySampling.topP,
    accepts: (x) => x > 0 && x <= 1,
    expected: 'in (0, 1]',
    help: 'only the most probable tokens whose probabilities add up to p',
    standard: "the model's, else off",
    flag: { kind: 'number', value: '<p>' },
  }),
  minP: number({
    otherwise: librarySampling.minP,
    accepts: (x) => x >= 0 && x <= 1,
    expected: 'in [0, 1]',
    help: 'only tokens at least p times as probable as the most probable one',
    standard: "the model's, else off",
    flag: { kind: 'number', value: '<p>' },
  }),
  repetitionPenalty: number({
    otherwise: librarySampling.repetitionPenalty,
    accepts: (x) => x > 0 && x < Infinity,
    expected: 'a number > 0',
    help: 'above 1: fewer repetitions',
    standard: "the model's, else off",
    flag: { kind: 'number', value: '<r>' },
  }),
  presencePenalty: penalty('subtracted from the logits of tokens generated so far'),
  frequencyPenalty: penalty('subtracted from the logit of a token once for each time it was generated'),
  seed: { ...seed, read: (given, place) => (given === -1 ? randomSeed() : seed.read(given, place)) },
  logitBias: checked<ReadonlyMap<number, number>>({
    otherwise: new Map(),
    expected: `a map from token ids to numbers in [-100, 100] or -Infinity, at most ${MAX_BIASES}`,
    read: (given, { name, vocab }) => readBias(given, name, vocab),
    help: 'added to the logits of tokens; -Infinity forbids a token',
  }),
  logprobs: integer({
    otherwise: 0,
    from: 0,
    to: MAX_LOGPROBS,
    help: 'number of most probable tokens to report with the chosen one',
  }),
  inspect: flag(false, { help: 'report for each token how it was chosen' }),
  constraint: checked<SamplingOptions['constraint']>({
    otherwise: undefined,
    expected: 'an object with the methods allowed and accept, or a function that makes one',
    read: (given, { name }) => readConstraint(given, name),
    help: 'which tokens may come next; only with `inline`',
    programs: true,
  }),
  logitsProcessor: checked<LogitsProcessor | undefined>({
    otherwise: undefined,
    expected: 'a function',
    read: (given, { name }) => readProcessor(given, name),
    help: 'changes the logits; only with `inline`',
    programs: true,
  }),
} satisfies Table<SamplingOptions>;

export type SamplingSettings = Settings<typeof samplingTable>;

/** @throws OptionError naming the option and its range */
export const validateSampling = (
  options: SamplingOptions = {},
  rules: OptionRules<SamplingOptions> = {},
): SamplingSettings => readOptions(samplingTable, options, rules);

function readConstraint(given: unknown, name: string): SamplingOptions['constraint'] {
  if (typeof given === 'function') return given as SamplingOptions['constraint'];
  const { allowed, accept } = Object(given) as Partial<Constraint>;
  if (typeof allowed !== 'function' || typeof accept !== 'function')
    throw new OptionError(name, 'an object with the methods allowed and accept, or a function that makes one', given);
  return given as Constraint;
}

function readProcessor(given: unknown, name: string): LogitsProcessor {
  if (typeof given === 'function') return given as LogitsProcessor;
  throw new OptionError(name, 'a function', given);
}

function readBias(given: unknown, name: string, vocab: number | undefined): ReadonlyMap<number, number> {
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
