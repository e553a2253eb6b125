/** Cuts a text that is longer than the context into windows that overlap. */
import type { Model } from '../engine/model.ts';
import { LanewiseError, OptionError } from '../errors.ts';

export interface WindowOptions {
  /** Most tokens of a window. Default: the model's context. */
  readonly contextLength?: number | undefined;
  /** Tokens from the beginning of a window to that of the next. Default: half of a window. */
  readonly stride?: number | undefined;
  /** Takes only so many tokens from the beginning of the text. */
  readonly maxTokens?: number | undefined;
}

export interface Window {
  /** The tokens given to the model. */
  readonly ids: readonly number[];
  /** Index in `ids` of the first token that is scored; those before are its context. */
  readonly from: number;
  /** Position in the text minus index in `ids`. */
  readonly shift: number;
}

/** Size of an evaluation. */
export interface Extent {
  /** Tokens of the text, and how many of them are scored: all but the first. */
  readonly tokens: number;
  readonly scored: number;
  readonly windows: number;
  readonly contextLength: number;
  readonly stride: number;
}

/**
 * Token ids of a text as the model expects it, or the given ids.
 * @throws OptionError for less than two tokens; LanewiseError NoTokenizer, TokenizerError
 */
export function tokensOf(model: Model, text: string | readonly number[], { maxTokens }: WindowOptions = {}): number[] {
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 2))
    throw new OptionError('maxTokens', 'an integer of at least 2', maxTokens);
  if (typeof text !== 'string') return checked(model.encode({ tokenIds: text }), text).slice(0, maxTokens);
  // Without a tokenizer, encoding has the error that says why.
  const ids = model.tokenizer ? model.tokenizer.encode(text) : model.encode(text);
  return checked(ids, text).slice(0, maxTokens);
}

function checked(ids: number[], text: unknown): number[] {
  if (ids.length >= 2) return ids;
  const found = ids.length === 0 ? text : `${ids.length} token`;
  throw new OptionError('text', 'at least two tokens long: the second is the first that can be scored', found);
}

/**
 * Windows in which every token but the first is scored once, after at least `contextLength - stride` tokens where there are so
 * many. If the text begins with the token that models expect at the beginning (BOS), so does every window.
 * @throws OptionError
 */
export function windowsOf(
  model: Model,
  ids: readonly number[],
  options: WindowOptions = {},
): { windows: Iterable<Window>; extent: Extent } {
  const { contextLength = model.contextLength } = options;
  if (!(Number.isInteger(contextLength) && contextLength >= 2 && contextLength <= model.contextLength))
    throw new OptionError('contextLength', `an integer from 2 to ${model.contextLength}`, contextLength);
  const bos = model.tokenizer?.role('bos')?.id ?? model.description.bosTokenId;
  const begins = bos !== undefined && ids[0] === bos && contextLength > 2;
  const most = begins ? contextLength - 1 : contextLength;
  const { stride = Math.max(1, Math.floor(contextLength / 2)) } = options;
  if (!(Number.isInteger(stride) && stride >= 1 && stride <= most))
    throw new OptionError('stride', `an integer from 1 to ${most}, the window`, stride);
  const spans: { begin: number; end: number; first: number }[] = [];
  for (let begin = 0, scored = 1; scored < ids.length; begin += stride) {
    const end = Math.min(begin + (begin > 0 ? most : contextLength), ids.length);
    const first = Math.max(scored, begin > 0 && begins ? begin : begin + 1);
    if (end > first) spans.push({ begin, end, first });
    scored = end;
  }
  function* windows(): Generator<Window> {
    for (const { begin, end, first } of spans) {
      const again = begins && begin > 0;
      const own = ids.slice(begin, end);
      const shift = again ? begin - 1 : begin;
      yield { ids: again ? [bos!, ...own] : own, from: first - shift, shift };
    }
  }
  const scored = spans.reduce((sum, span) => sum + span.end - span.first, 0);
  return { windows: windows(), extent: { tokens: ids.length, scored, windows: spans.length, contextLength, stride } };
}

/** Mean of numbers, and its standard error if they are taken as independent. */
export class Mean {
  count = 0;
  mean = 0;
  #squares = 0;

  /** Welford's recurrence: no cancellation, however many numbers. */
  add(value: number): void {
    this.count++;
    const delta = value - this.mean;
    this.mean += delta / this.count;
    this.#squares += delta * (value - this.mean);
  }

  get standardError(): number {
    return this.count < 2 ? Number.NaN : Math.sqrt(this.#squares / (this.count - 1) / this.count);
  }
}

/** @throws LanewiseError NotComparable */
export const notComparable = (what: string): LanewiseError => new LanewiseError('NotComparable', what);
