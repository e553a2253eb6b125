/** The options of a generation, checked in one place for library and CLI. */
import { OptionError } from '../errors.ts';
import {
  type OptionRules,
  optionReader,
  type SamplingOptions,
  type SamplingSettings,
  validateSampling,
} from '../sampling/sampling-options.ts';
import { MAX_STOP_LENGTH, MAX_STOPS } from './stop.ts';

export interface GenerateOptions extends SamplingOptions {
  /**
   * Most tokens to generate (finish reason `length`); a full context ends a text too (`contextLength`). Default 256; -1: as
   * many as the context holds.
   */
  maxTokens?: number;
  /** Milliseconds after which the text so far is the result (finish reason `timeout`), from its start: waiting does not count. */
  timeoutMs?: number;
  /**
   * Time, as of `Date.now()`, at which the text so far is the result (finish reason `timeout`), also where the request still
   * waits.
   */
  deadline?: number;
  /** Whether a timeout throws an error behind its `done` event. Default false. */
  throwOnTimeout?: boolean;
  /** Strings that end the text and are not part of it; control tokens that the text does not show are found too. */
  stop?: string | readonly string[];
  /** Ids of tokens that end the text beside the model's own ends, also with `ignoreEos`. */
  stopTokenIds?: readonly number[];
  /** Go on after the end tokens of the model, and show control tokens. */
  ignoreEos?: boolean;
  /**
   * Leave out the oldest turns of a conversation that the context does not hold, as few as half of the context allows; system
   * messages stay (`usage.droppedMessages`). Default false: an error.
   */
  contextShift?: boolean;
  /**
   * Most tokens that are guessed ahead from the text so far and checked in one forward; 0 (default): none. The result is
   * the same to the bit; texts that repeat parts of their prompt come faster.
   */
  speculate?: number;
  /**
   * Answers to one prompt, in batches: they share its keys and values. The first has the seed of the request, the others seeds that
   * follow from it. Default 1.
   */
  n?: number;
  /** Requests with lower numbers are served first and may make others pause. An integer; default 0. */
  priority?: number;
  /** Whose request it is: prompts are read in turns of such keys. Default ''. */
  fairnessKey?: string;
  /** Whether the forwards are timed by phase (`timings.steps`). Default false. */
  timing?: boolean;
  /** Ends the generation when aborted: a `done` event with finish reason `aborted` has the text so far. */
  signal?: AbortSignal;
  /** Whether an abort throws the signal's reason behind the `done` event. Default true. */
  throwOnAbort?: boolean;
}

export interface GenerateSettings extends SamplingSettings {
  readonly maxTokens: number;
  /** Infinity: none. */
  readonly timeoutMs: number;
  /** Infinity: none. */
  readonly deadline: number;
  readonly stop: readonly string[];
  readonly stopTokenIds: ReadonlySet<number>;
  readonly ignoreEos: boolean;
  readonly contextShift: boolean;
  readonly throwOnAbort: boolean;
  readonly throwOnTimeout: boolean;
  readonly speculate: number;
  readonly n: number;
  readonly priority: number;
  readonly fairnessKey: string;
  readonly timing: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Every key of GenerateOptions; the type makes forgetting one a compile error. */
const KNOWN: Record<keyof GenerateOptions, true> = {
  maxTokens: true,
  timeoutMs: true,
  deadline: true,
  throwOnTimeout: true,
  stop: true,
  stopTokenIds: true,
  ignoreEos: true,
  contextShift: true,
  speculate: true,
  n: true,
  priority: true,
  fairnessKey: true,
  timing: true,
  signal: true,
  throwOnAbort: true,
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  repetitionPenalty: true,
  presencePenalty: true,
  frequencyPenalty: true,
  seed: true,
  logitBias: true,
  logprobs: true,
  constraint: true,
  logitsProcessor: true,
};

export const optionNames = Object.keys(KNOWN) as readonly (keyof GenerateOptions)[];

/** Names of an earlier version that have another unit now, and what to write instead. */
export const renamedOptions: ReadonlyMap<string, { readonly option: keyof GenerateOptions; readonly unit: string }> =
  new Map([['timeout', { option: 'timeoutMs', unit: 'milliseconds' }]]);

const DEFAULT_MAX_TOKENS = 256;
const MAX_SPECULATE = 32;
const MAX_SAMPLES = 128;
const MAX_PRIORITY = 2 ** 31 - 1;
const MAX_KEY_LENGTH = 256;
const MAX_STOP_TOKENS = 1024;

/** @param rules `single`: for one answer @throws OptionError naming the option and what it accepts */
export function validateGenerate(
  options: GenerateOptions = {},
  { single = false, ...rules }: OptionRules<GenerateOptions> & { single?: boolean } = {},
): GenerateSettings {
  if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
  const read = optionReader(options, rules);
  for (const [key, value] of Object.entries(options)) {
    if (Object.hasOwn(KNOWN, key)) continue;
    const renamed = renamedOptions.get(key);
    if (renamed)
      throw new OptionError(read.name(key), `given as ${read.name(renamed.option)}, in ${renamed.unit}`, value);
    const known = optionNames.map(read.name).join(', ');
    throw new OptionError(read.name(key), `left out (no such option; known: ${known})`, value);
  }
  const flag = (option: keyof GenerateOptions, otherwise: boolean): boolean => {
    const value = read.value(option) ?? otherwise;
    if (typeof value !== 'boolean') throw new OptionError(read.name(option), 'true or false', value);
    return value;
  };
  const signal = read.value('signal');
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new OptionError(read.name('signal'), 'an AbortSignal', signal);
  return {
    ...validateSampling(options, rules),
    maxTokens: read.unlimited('maxTokens')
      ? Number.MAX_SAFE_INTEGER
      : read.integer('maxTokens', DEFAULT_MAX_TOKENS, 0, Number.MAX_SAFE_INTEGER, 'an integer >= 0 (-1: no limit)'),
    timeoutMs:
      read.given('timeoutMs') && !read.unlimited('timeoutMs')
        ? read.number('timeoutMs', 0, (x) => x > 0 && x < Infinity, 'a number of milliseconds > 0 (-1: none)')
        : Number.POSITIVE_INFINITY,
    deadline: read.given('deadline')
      ? read.number(
          'deadline',
          0,
          (x) => x > 0 && x <= Number.MAX_SAFE_INTEGER,
          'a time in milliseconds, as Date.now()',
        )
      : Number.POSITIVE_INFINITY,
    n: single
      ? read.number('n', 1, (x) => x === 1, '1 (generateBatch gives several answers)')
      : read.integer('n', 1, 1, MAX_SAMPLES, `an integer from 1 to ${MAX_SAMPLES}`),
    priority: read.integer(
      'priority',
      0,
      -MAX_PRIORITY,
      MAX_PRIORITY,
      `an integer from -${MAX_PRIORITY} to ${MAX_PRIORITY}`,
    ),
    fairnessKey: readKey(read.value('fairnessKey'), read.name('fairnessKey')),
    timing: flag('timing', false),
    stop: readStops(read.value('stop'), read.name('stop')),
    stopTokenIds: readIds(read.value('stopTokenIds'), read.name('stopTokenIds'), rules.vocab),
    ignoreEos: flag('ignoreEos', false),
    contextShift: flag('contextShift', false),
    throwOnAbort: flag('throwOnAbort', true),
    throwOnTimeout: flag('throwOnTimeout', false),
    speculate: read.integer('speculate', 0, 0, MAX_SPECULATE, `an integer from 0 to ${MAX_SPECULATE}`),
    signal,
  };
}

function readKey(given: unknown, name: string): string {
  if (given === undefined || given === null) return '';
  if (typeof given === 'string' && given.length <= MAX_KEY_LENGTH) return given;
  throw new OptionError(name, `a string of at most ${MAX_KEY_LENGTH} characters`, given);
}

function readStops(given: unknown, name: string): readonly string[] {
  const stops: unknown = typeof given === 'string' ? [given] : (given ?? []);
  if (!Array.isArray(stops)) throw new OptionError(name, 'a string or an array of strings', given);
  if (stops.length > MAX_STOPS) throw new OptionError(name, `at most ${MAX_STOPS} strings`, stops.length);
  for (const stop of stops) {
    if (typeof stop !== 'string' || stop.length === 0 || stop.length > MAX_STOP_LENGTH)
      throw new OptionError(name, `made of strings of 1 to ${MAX_STOP_LENGTH} characters`, stop);
    if (/\p{Surrogate}/u.test(stop)) throw new OptionError(name, 'well-formed Unicode', stop);
  }
  return [...stops];
}

function readIds(given: unknown, name: string, vocab = 2 ** 31): ReadonlySet<number> {
  if (given === undefined || given === null) return new Set();
  if (!Array.isArray(given)) throw new OptionError(name, 'an array of token ids', given);
  if (given.length > MAX_STOP_TOKENS) throw new OptionError(name, `at most ${MAX_STOP_TOKENS} token ids`, given.length);
  for (const id of given) {
    if (!(Number.isInteger(id) && id >= 0 && id < vocab))
      throw new OptionError(name, `made of integers from 0 to ${vocab - 1}`, id);
  }
  return new Set(given);
}
