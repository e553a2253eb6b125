/** Checks of prompts. */
import { LanewiseError, OptionError } from '../errors.ts';

/** A prompt that does not fit in the context. */
export class ContextLengthError extends LanewiseError {
  /** Positions of the context, and the largest context that the model supports. */
  readonly contextLength: number;
  readonly longest: number;

  constructor(found: string, contextLength: number, longest: number) {
    const remedy =
      contextLength < longest
        ? `shorten it or raise contextLength (this model takes up to ${longest})`
        : 'shorten it (the model takes no more)';
    super('ContextLengthExceeded', `the prompt has ${found}; ${remedy}`);
    this.contextLength = contextLength;
    this.longest = longest;
  }
}

/** @throws ContextLengthError */
export function checkLength(tokens: number, contextLength: number, longest = contextLength): void {
  if (tokens > contextLength)
    throw new ContextLengthError(`${tokens} tokens, the context holds ${contextLength}`, contextLength, longest);
}

/** Checks the type of a prompt, for callers without TypeScript. @throws OptionError */
export function checkPrompt(prompt: unknown): void {
  if (typeof prompt === 'string') return;
  const parts = typeof prompt === 'object' && prompt !== null ? (prompt as Record<string, unknown>) : {};
  if ('tokenIds' in parts) {
    if (Array.isArray(parts.tokenIds) || ArrayBuffer.isView(parts.tokenIds)) return;
    throw new OptionError('tokenIds', 'an array of token ids', parts.tokenIds);
  }
  if ('text' in parts) {
    if (typeof parts.text === 'string') return;
    throw new OptionError('text', 'a string', parts.text);
  }
  if ('messages' in parts) {
    if (Array.isArray(parts.messages)) return;
    throw new OptionError('messages', 'an array of messages', parts.messages);
  }
  throw new OptionError('prompt', 'a string, { text }, { messages } or { tokenIds }', prompt);
}
