/** What callers may put between the model's logits and the choice of a token. */
import { LanewiseError } from '../errors.ts';

/** Decides which tokens may come next; a grammar, for example. It keeps the state of one text. */
export interface Constraint {
  /**
   * Clears the bits of the tokens that may not come next: bit id % 32 of word id / 32. All bits are set before. Applied
   * before anything else acts on the logits. Asked once for each token that is chosen.
   */
  allowed(mask: Uint32Array): void;
  /** `token` is now part of the text. */
  accept(token: number): void;
}

/**
 * Changes the logits of the next token in place, [vocab]. Tokens that the constraint forbids are -Infinity, and stay
 * forbidden whatever is written there.
 * @param history ids of prompt and text so far
 */
export type LogitsProcessor = (logits: Float32Array, history: readonly number[]) => void;

/** Runs a caller's function; what it throws ends the request with a typed error. @throws LanewiseError CallbackFailed */
export function callback<T>(name: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof LanewiseError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new LanewiseError('CallbackFailed', `${name} threw an error: ${message}`, { cause: error });
  }
}
