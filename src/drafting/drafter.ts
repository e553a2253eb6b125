/** What guesses the next tokens of texts, so that one forward of the model can check several of them. */
import type { Sampler } from '../sampling/sampler.ts';

/** A request that may get drafts: the same object each time. */
export interface DraftRequest {
  /** Prompt and text so far. Only grows. */
  readonly history: readonly number[];
  /** Chooses the tokens of the text. A drafter may fork it, never use it. */
  readonly sampler: Sampler;
}

/** A request, and the most tokens (at least 1) that a draft for it may have. */
export interface DraftWish {
  readonly request: DraftRequest;
  readonly most: number;
}

/**
 * Guesses change how long a text takes, never the text: a guess counts only where the model itself chooses the same token.
 * What a drafter throws ends no request.
 */
export interface Drafter {
  /** For messages. */
  readonly name: string;
  /** Tokens guessed to follow the history of each request, in the order of the wishes; none where it has no guess. */
  draft(wishes: readonly DraftWish[]): Promise<readonly (readonly number[])[]>;
  /** Milliseconds, estimated, until it has read what is new in the history. */
  readingMs(request: DraftRequest): number;
  /** Forgets a request: it has ended or pauses. */
  release(request: DraftRequest): void;
  dispose(): Promise<void>;
}
