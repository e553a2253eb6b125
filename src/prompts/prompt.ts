/** Encodes prompts to token ids. */
import { LanewiseError, OptionError } from '../errors.ts';
import type { TextPart, Tokenizer } from '../tokenizer/tokenizer.ts';
import { type ChatFiles, type ChatFormat, type ChatPrompt, renderChat, templateOf } from './chat.ts';
import { ContextLengthError, checkPrompt } from './limits.ts';

/**
 * Text, token ids, or a conversation that is rendered with the model's chat template. Control tokens spelled in text
 * (`<|im_end|>`) are ordinary text unless `parseSpecial` is set.
 */
export type Prompt = string | TextPart | { readonly tokenIds: readonly number[] } | ChatPrompt;

export interface PromptFiles {
  /** Name of the model, for errors. */
  readonly name: string;
  readonly tokenizer: Tokenizer | undefined;
  /** The error if the model's tokenizer is invalid, or the model is disposed. */
  readonly tokenizerError?: LanewiseError | undefined;
  /** The model's chat templates, or the error that explains why there are none. */
  readonly chat: ChatFiles;
  readonly vocab: number;
  /** Largest number of positions of a sequence, and the largest that the model supports. */
  readonly contextLength: number;
  readonly longestContext: number;
}

/** Texts up to this length are tokenized without checking their length first. */
const QUICK_TEXT = 2 ** 20;

/** Encodes prompts for one model. */
export class PromptEncoder {
  #files: PromptFiles;
  /** Characters of the longest token, computed when first needed. */
  #longestToken: number | undefined;

  constructor(files: PromptFiles) {
    this.#files = files;
  }

  get files(): PromptFiles {
    return this.#files;
  }

  /** Releases tokenizer and templates, the largest objects that a disposed model would keep alive. */
  dispose(): void {
    const { name, vocab, contextLength, longestContext } = this.#files;
    const gone = new LanewiseError('Disposed', `${name} has been disposed`);
    const chat = { tokens: { bosToken: undefined, eosToken: undefined }, format: gone };
    this.#files = { name, vocab, contextLength, longestContext, tokenizer: undefined, tokenizerError: gone, chat };
  }

  /** The model's chat template. @throws LanewiseError NoChatTemplate, TemplateError */
  get chatFormat(): ChatFormat {
    const { format } = this.files.chat;
    if (format instanceof LanewiseError) throw format;
    return format;
  }

  /**
   * Token ids of a prompt. A text that cannot fit in the context even with the longest tokens is refused without
   * tokenizing it.
   * @throws OptionError, TemplateError, TokenizerError, LanewiseError NoTokenizer, NoChatTemplate, ContextLengthExceeded
   */
  encode(prompt: Prompt): number[] {
    checkPrompt(prompt);
    if (typeof prompt !== 'string' && 'tokenIds' in prompt) return this.#checked(prompt.tokenIds);
    const tokenizer = this.#tokenizer();
    if (typeof prompt === 'string') {
      this.#checkText(prompt.length);
      return tokenizer.encode(prompt);
    }
    if ('text' in prompt) {
      this.#checkText(prompt.text.length);
      return tokenizer.encodeParts([prompt]);
    }
    const { template, tools } = prompt;
    const chosen = typeof template === 'object' ? template : templateOf(this.chatFormat, template, tools);
    const parts = renderChat(this.files.chat.tokens, chosen, prompt);
    this.#checkText(parts.reduce((sum, { text }) => sum + text.length, 0));
    return tokenizer.encodeParts(parts, { addSpecial: false });
  }

  #tokenizer(): Tokenizer {
    const { name, tokenizer, tokenizerError } = this.files;
    if (tokenizerError) throw tokenizerError;
    if (!tokenizer) throw new LanewiseError('NoTokenizer', `${name} has no tokenizer: give token ids`);
    return tokenizer;
  }

  #checked(ids: readonly number[]): number[] {
    for (const id of ids) {
      if (!(Number.isInteger(id) && id >= 0 && id < this.files.vocab))
        throw new OptionError('tokenIds', `made of integers from 0 to ${this.files.vocab - 1}`, id);
    }
    return [...ids];
  }

  #checkText(characters: number): void {
    if (characters <= QUICK_TEXT) return;
    const { contextLength, longestContext } = this.files;
    this.#longestToken ??= longestToken(this.files.tokenizer!);
    if (characters <= contextLength * this.#longestToken) return;
    throw new ContextLengthError(
      `${characters} characters, the context holds ${contextLength} tokens of at most ${this.#longestToken}`,
      contextLength,
      longestContext,
    );
  }
}

/** Characters of the vocabulary's longest token. Its spelling is never shorter than its text. */
function longestToken(tokenizer: Tokenizer): number {
  let longest = 1;
  for (let id = 0; id < tokenizer.vocabSize; id++) longest = Math.max(longest, tokenizer.token(id)?.length ?? 0);
  return longest;
}
