/** The text of a generation: what its tokens add to the text of the prompt. */
import type { DecodeOptions, IncrementalDecoder, Tokenizer } from '../tokenizer/tokenizer.ts';

/** Tokens of the prompt that are decoded again: more than a character is made of. */
const TAIL = 16;

/**
 * Decodes tokens that go on with a text: prompt and pieces joined are what decoding all tokens gives. A decoder that begins
 * with them would take them for the beginning of a text, where those of SentencePiece leave out a space.
 */
export function continueText(
  tokenizer: Tokenizer,
  promptIds: readonly number[],
  options: DecodeOptions,
): IncrementalDecoder {
  const special = new Set(tokenizer.specialIds);
  const tail = promptIds.slice(-TAIL).filter((id) => !special.has(id));
  const decoder = tokenizer.incremental(options);
  const shown = tail.map((id) => decoder.push(id)).join('');
  // What the decoder holds back of the prompt comes with later pieces.
  let owed = tokenizer.decode(tail).slice(shown.length);
  const added = (text: string): string => {
    const held = owed;
    owed = held.startsWith(text) ? held.slice(text.length) : '';
    return text.startsWith(held) ? text.slice(held.length) : held.startsWith(text) ? '' : text;
  };
  return { push: (id) => added(decoder.push(id)), end: () => added(decoder.end()) };
}
