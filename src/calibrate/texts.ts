/** Calibration text as token ids. */
import { OptionError } from '../errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** Least and usual number of tokens of a calibration text. */
const LEAST_TOKENS = 128;

export interface TextOptions {
  /** Name of the option, for errors. */
  readonly option: string;
  /** Most tokens of a piece. */
  readonly length: number;
  /** Most tokens of all pieces. */
  readonly tokens: number;
}

/**
 * Cuts a text into pieces of up to `length` tokens, each framed as the model expects a text to be. If the text has more than
 * `tokens` tokens, the pieces are spread over all of it.
 * @throws OptionError for a text that is too short
 */
export function calibrationTexts(
  tokenizer: Tokenizer,
  text: string,
  { option, length, tokens }: TextOptions,
): Int32Array[] {
  const ids = tokenizer.encode(text, { addSpecial: false });
  if (ids.length < LEAST_TOKENS)
    throw new OptionError(
      option,
      `a text of at least ${LEAST_TOKENS} tokens (some thousand are usual)`,
      `${ids.length} tokens`,
    );
  const frame = tokenizer.encode('', { addSpecial: true });
  const { before, after } = frameOf(tokenizer, frame);
  const own = Math.max(1, length - frame.length);
  const starts = Array.from({ length: Math.floor(ids.length / own) }, (_, i) => i * own);
  if (starts.length === 0) return [Int32Array.of(...before, ...ids, ...after)];
  const most = Math.max(1, Math.floor(tokens / length));
  const step = Math.max(1, starts.length / most);
  const chosen = Array.from({ length: Math.min(most, starts.length) }, (_, i) => starts[Math.floor(i * step)]!);
  return chosen.map((start) => Int32Array.of(...before, ...ids.slice(start, start + own), ...after));
}

/** Special tokens in front of a text and behind it. */
function frameOf(
  tokenizer: Tokenizer,
  frame: readonly number[],
): { before: readonly number[]; after: readonly number[] } {
  if (frame.length === 0) return { before: [], after: [] };
  const sample = tokenizer.encode('a', { addSpecial: true });
  const inner = tokenizer.encode('a', { addSpecial: false });
  const count = sample.length - inner.length;
  for (let before = 0; before <= count; before++)
    if (inner.every((id, i) => sample[before + i] === id))
      return { before: sample.slice(0, before), after: sample.slice(before + inner.length) };
  return { before: frame, after: [] };
}
