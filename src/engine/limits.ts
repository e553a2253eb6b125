/** What a prompt and the rows of a forward must keep to. */
import { LanewiseError, OptionError } from '../errors.ts';
import type { Sequence } from '../evaluate/sequence.ts';

/** A prompt that the context does not hold. */
export class ContextLengthError extends LanewiseError {
  /** Positions that the context holds, and the most that the model was made for. */
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

interface Rows {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  readonly wanted: boolean | 'all';
}

/** @throws OptionError for rows that a forward cannot take */
export function checkRows(
  parts: readonly Rows[],
  limits: { maxRows: number; maxSequences: number; vocab: number; owns: (sequence: Sequence) => boolean },
): void {
  const { maxRows, maxSequences, vocab, owns } = limits;
  if (!Array.isArray(parts) || parts.length === 0)
    throw new OptionError('parts', 'an array of at least one part', parts);
  const seen = new Set<Sequence>();
  let [rows, wantedRows] = [0, 0];
  for (const { sequence, tokens, wanted } of parts) {
    if (!owns(sequence)) throw new OptionError('sequence', 'a sequence of this model', sequence);
    if (seen.has(sequence)) throw new OptionError('parts', 'made of different sequences', 'one sequence twice');
    seen.add(sequence);
    if (!Array.isArray(tokens) || tokens.length === 0)
      throw new OptionError('tokens', 'an array of at least one token id', tokens);
    for (const id of tokens) {
      if (!(Number.isInteger(id) && id >= 0 && id < vocab))
        throw new OptionError('tokens', `made of integers from 0 to ${vocab - 1}`, id);
    }
    rows += tokens.length;
    wantedRows += wanted === 'all' ? tokens.length : wanted ? 1 : 0;
  }
  if (rows > maxRows) throw new OptionError('parts', `at most ${maxRows} rows`, rows);
  if (wantedRows > maxSequences) throw new OptionError('parts', `at most ${maxSequences} wanted rows`, wantedRows);
}

/** What a prompt is, for callers whom no type has told. @throws OptionError */
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
