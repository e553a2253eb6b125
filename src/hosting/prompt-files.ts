/** What encodes prompts, handed to the caller of a hosted engine: as bytes, made into a tokenizer when it is first asked for. */
import { ChatTemplate } from '../chat/template.ts';
import { withinVocabulary } from '../engine/tokenizer.ts';
import { makeTokenizer, type TokenizerSource } from '../engine/tokenizer-source.ts';
import { LanewiseError, type TokenizerError } from '../errors.ts';
import type { ChatFiles, TokenTexts } from '../prompts/chat.ts';
import type { PromptFiles } from '../prompts/prompt.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type ErrorData, packError, unpackError } from './error-data.ts';

interface ChatData {
  readonly tokens: TokenTexts;
  readonly error?: ErrorData;
  /** Source texts by name, and the one that is taken where none is named. */
  readonly named?: readonly (readonly [name: string, source: string])[];
  readonly source?: string;
}

export interface PromptData {
  readonly fixed: Pick<PromptFiles, 'name' | 'vocab' | 'contextLength' | 'longestContext'>;
  readonly tokenizer: unknown;
  readonly tokenizerError: ErrorData | undefined;
  readonly chat: ChatData;
}

/** @param source of the tokenizer @param buffers gets those that are to be moved to the caller */
export function packPromptFiles(
  { name, vocab, contextLength, longestContext, tokenizerError, chat }: PromptFiles,
  source: TokenizerSource | undefined,
  buffers: ArrayBuffer[],
): PromptData {
  return {
    fixed: { name, vocab, contextLength, longestContext },
    tokenizer: tokenizerError ? undefined : packTexts(source, buffers),
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

/** Texts that are worth the way over bytes: these move, while texts are copied as the message is read. */
const LONG_TEXT = 4096;

interface PackedText {
  readonly packed: 'text';
  readonly bytes: Uint8Array;
}

interface PackedList {
  readonly packed: 'list';
  /** All texts, one after the other. */
  readonly bytes: Uint8Array;
  /** Code units of each. */
  readonly lengths: Uint32Array;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

function packTexts(value: unknown, buffers: ArrayBuffer[]): unknown {
  const move = <A extends { readonly buffer: ArrayBufferLike }>(array: A): A => {
    buffers.push(array.buffer as ArrayBuffer);
    return array;
  };
  if (typeof value === 'string')
    return value.length < LONG_TEXT ? value : { packed: 'text', bytes: move(encoder.encode(value)) };
  if (typeof value !== 'object' || value === null) return value;
  // The tokenizer here goes on using its own.
  if (ArrayBuffer.isView(value)) return move((value as Uint8Array).slice());
  if (Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === 'string')) {
    const lengths = Uint32Array.from(value, ({ length }: string) => length);
    return { packed: 'list', bytes: move(encoder.encode(value.join(''))), lengths: move(lengths) };
  }
  if (Array.isArray(value)) return value;
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, packTexts(item, buffers)]));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, packTexts(item, buffers)]));
}

function unpackTexts(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) return value;
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, unpackTexts(item)]));
  const { packed } = value as Partial<PackedText | PackedList>;
  if (packed === 'text') return decoder.decode((value as PackedText).bytes);
  if (packed === 'list') {
    const { bytes, lengths } = value as PackedList;
    const text = decoder.decode(bytes);
    let at = 0;
    return Array.from(lengths, (length) => text.slice(at, (at += length)));
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpackTexts(item)]));
}

/** As the engine has them; tokenizer and templates are made when they are first asked for. */
export class HostedPromptFiles implements PromptFiles {
  readonly name: string;
  readonly vocab: number;
  readonly contextLength: number;
  readonly longestContext: number;
  readonly tokenizerError: TokenizerError | undefined;
  #source: unknown;
  #tokenizer: Tokenizer | undefined;
  readonly #chatData: ChatData;
  #chat: ChatFiles | undefined;

  constructor({ fixed, tokenizer, tokenizerError, chat }: PromptData) {
    const { name, vocab, contextLength, longestContext } = fixed;
    this.name = name;
    this.vocab = vocab;
    this.contextLength = contextLength;
    this.longestContext = longestContext;
    this.tokenizerError = tokenizerError && (unpackError(tokenizerError) as TokenizerError);
    this.#source = tokenizer;
    this.#chatData = chat;
  }

  get tokenizer(): Tokenizer | undefined {
    if (this.#source !== undefined) {
      const made = makeTokenizer(unpackTexts(this.#source) as TokenizerSource);
      this.#tokenizer = made && withinVocabulary(made, this.vocab, this.name);
      this.#source = undefined;
    }
    return this.#tokenizer;
  }

  get chat(): ChatFiles {
    this.#chat ??= unpackChat(this.#chatData);
    return this.#chat;
  }
}
