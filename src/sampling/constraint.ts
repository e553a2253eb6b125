/** Hooks of callers between the logits and the choice of a token. */
import { LanewiseError } from '../errors.ts';

/** Decides which tokens are allowed next, such as a grammar. It holds the state of one text. */
export interface Constraint {
  /**
   * Clears the bits of forbidden tokens: bit id % 32 of word floor(id / 32). All bits are set before the call. Called
   * once for each token, before anything else changes the logits.
   */
  allowed(mask: Uint32Array): void;
  /** Called when `token` has been added to the text. */
  accept(token: number): void;
}

/**
 * Changes the logits [vocab] of the next token in place. Tokens forbidden by the constraint are -Infinity and stay
 * forbidden whatever the function writes.
 * @param history ids of prompt and text so far
 */
export type LogitsProcessor = (logits: Float32Array, history: readonly number[]) => void;

/** Runs a function of the caller and wraps its errors. @throws LanewiseError CallbackFailed */
export function callback<T>(name: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof LanewiseError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new LanewiseError('CallbackFailed', `${name} threw an error: ${message}`, { cause: error });
  }
}
