/** Decoding of generated tokens: the text that they add to the text of the prompt. */
import type { DecodeOptions, IncrementalDecoder, Tokenizer } from '../tokenizer/tokenizer.ts';

/** Number of prompt tokens that are decoded again: more than a character has. */
const TAIL = 16;

/**
 * A decoder for tokens after a prompt: the texts of prompt and pieces joined equal the text of all tokens. A decoder that
 * starts with the first generated token would treat it as the beginning of a text, where SentencePiece drops a space.
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
  // Text of the prompt that the decoder holds back comes with later pieces.
  let owed = tokenizer.decode(tail).slice(shown.length);
  const added = (text: string): string => {
    const held = owed;
    owed = held.startsWith(text) ? held.slice(text.length) : '';
    return text.startsWith(held) ? text.slice(held.length) : held.startsWith(text) ? '' : text;
  };
  return { push: (id) => added(decoder.push(id)), end: () => added(decoder.end()) };
}
