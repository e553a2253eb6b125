/** The options of a generation, checked in one place for library and CLI. */
import { OptionError } from '../errors.ts';
import {
  type OptionRules,
  optionReader,
  type SamplingOptions,
  type SamplingSettings,
  validateSampling,
} from './sampling-options.ts';
import { MAX_STOP_LENGTH, MAX_STOPS } from './stop.ts';

export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to generate; the context length ends a text too. Default 256. */
  maxTokens?: number;
  /** Seconds after which the text so far is the result (finish reason `timeout`). */
  timeout?: number;
  /** Strings that end the text and are not part of it. */
  stop?: string | readonly string[];
  /** Go on after an end token. */
  ignoreEos?: boolean;
  /**
   * Most tokens that are guessed ahead from the text so far and checked in one forward; 0 (default): none. The result is
   * the same to the bit; texts that repeat parts of their prompt come faster.
   */
  speculate?: number;
  /** Ends the generation when aborted. */
  signal?: AbortSignal;
}

export interface GenerateSettings extends SamplingSettings {
  readonly maxTokens: number;
  /** Seconds; Infinity: none. */
  readonly timeout: number;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  readonly speculate: number;
  readonly signal: AbortSignal | undefined;
}

/** Every key of GenerateOptions; the type makes forgetting one a compile error. */
const KNOWN: Record<keyof GenerateOptions, true> = {
  maxTokens: true,
  timeout: true,
  stop: true,
  ignoreEos: true,
  speculate: true,
  signal: true,
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
};

const DEFAULT_MAX_TOKENS = 256;
const MAX_SPECULATE = 32;

/** @throws OptionError naming the option and what it accepts */
export function validateGenerate(
  options: GenerateOptions = {},
  rules: OptionRules<GenerateOptions> = {},
): GenerateSettings {
  if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
  const read = optionReader(options, rules);
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(KNOWN, key)) {
      const known = Object.keys(KNOWN).map(read.name).join(', ');
      throw new OptionError(read.name(key), `left out (no such option; known: ${known})`, value);
    }
  }
  const ignoreEos = read.value('ignoreEos') ?? false;
  if (typeof ignoreEos !== 'boolean') throw new OptionError(read.name('ignoreEos'), 'true or false', ignoreEos);
  const signal = read.value('signal');
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new OptionError(read.name('signal'), 'an AbortSignal', signal);
  return {
    ...validateSampling(options, rules),
    maxTokens: read.integer('maxTokens', DEFAULT_MAX_TOKENS, 0, Number.MAX_SAFE_INTEGER, 'an integer >= 0'),
    timeout: read.given('timeout')
      ? read.number('timeout', 0, (x) => x > 0 && x < Infinity, 'a number of seconds > 0')
      : Number.POSITIVE_INFINITY,
    stop: readStops(read.value('stop'), read.name('stop')),
    ignoreEos,
    speculate: read.integer('speculate', 0, 0, MAX_SPECULATE, `an integer from 0 to ${MAX_SPECULATE}`),
    signal,
  };
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
