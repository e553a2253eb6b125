/** Sends tokenizer and chat templates to the caller of a hosted engine. */
import { ChatTemplate } from '../chat/template.ts';
import type { TokenizerSource } from '../engine/tokenizer-source.ts';
import { LanewiseError, type TokenizerError } from '../errors.ts';
import type { ChatFiles, TokenTexts } from '../prompts/chat.ts';
import type { PromptFiles } from '../prompts/prompt.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type ErrorData, packError, unpackError } from './error-data.ts';
import { LazyTokenizer, packTokenizer } from './tokenizer-data.ts';

interface ChatData {
  readonly tokens: TokenTexts;
  readonly error?: ErrorData;
  /** Source texts by name, and the default one. */
  readonly named?: readonly (readonly [name: string, source: string])[];
  readonly source?: string;
}

export interface PromptData {
  readonly fixed: Pick<PromptFiles, 'name' | 'vocab' | 'contextLength' | 'longestContext'>;
  readonly tokenizer: unknown;
  readonly tokenizerError: ErrorData | undefined;
  readonly chat: ChatData;
}

/** @param source data of the tokenizer @param buffers receives the buffers to transfer to the caller */
export function packPromptFiles(
  { name, vocab, contextLength, longestContext, tokenizerError, chat }: PromptFiles,
  source: TokenizerSource | undefined,
  buffers: ArrayBuffer[],
): PromptData {
  return {
    fixed: { name, vocab, contextLength, longestContext },
    tokenizer: tokenizerError ? undefined : packTokenizer(source, buffers),
    tokenizerError: tokenizerError && packError(tokenizerError),
    chat: packChat(chat),
  };
}

function packChat({ tokens, format }: ChatFiles): ChatData {
  if (format instanceof LanewiseError) return { tokens, error: packError(format) };
  const named = format.named && [...format.named].map(([name, { source }]) => [name, source] as const);
  return { tokens, source: format.template.source, named };
}

function unpackChat({ tokens, error, source, named }: ChatData): ChatFiles {
  if (error) return { tokens, format: unpackError(error) as LanewiseError };
  const template = new ChatTemplate(source!);
  if (!named) return { tokens, format: { template, ...tokens } };
  const templates = named.map(([name, text]) => [name, text === source ? template : new ChatTemplate(text)] as const);
  return { tokens, format: { template, named: new Map(templates), ...tokens } };
}

/** The same files as in the engine. Tokenizer and templates are built at first use. */
export class HostedPromptFiles implements PromptFiles {
  readonly name: string;
  readonly vocab: number;
  readonly contextLength: number;
  readonly longestContext: number;
  readonly tokenizerError: TokenizerError | undefined;
  readonly #tokenizer: LazyTokenizer;
  readonly #chatData: ChatData;
  #chat: ChatFiles | undefined;

  constructor({ fixed, tokenizer, tokenizerError, chat }: PromptData) {
    const { name, vocab, contextLength, longestContext } = fixed;
    this.name = name;
    this.vocab = vocab;
    this.contextLength = contextLength;
    this.longestContext = longestContext;
    this.tokenizerError = tokenizerError && (unpackError(tokenizerError) as TokenizerError);
    this.#tokenizer = new LazyTokenizer(tokenizer, vocab, name);
    this.#chatData = chat;
  }

  get tokenizer(): Tokenizer | undefined {
    return this.#tokenizer.get();
  }

  get chat(): ChatFiles {
    this.#chat ??= unpackChat(this.#chatData);
    return this.#chat;
  }
}
