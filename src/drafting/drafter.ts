/** The interface of drafters, which guess the next tokens of texts, so that one forward can check several of them. */
import type { Sampler } from '../sampling/sampler.ts';

/** A request that may get drafts; identified by this object. */
export interface DraftRequest {
  /** Token ids of prompt and text so far. The array only grows. */
  readonly history: readonly number[];
  /** The sampler of the text. A drafter may fork it, but not use it. */
  readonly sampler: Sampler;
  /** Only requests of one key share cached blocks. */
  readonly cacheKey: string;
}

/** A request, and the largest length (at least 1) of a draft for it. */
export interface DraftWish {
  readonly request: DraftRequest;
  readonly most: number;
}

/**
 * Drafts change the time of a text, never the text: a draft token is accepted only if the model chooses the same token.
 * Errors of a drafter end no request.
 */
export interface Drafter {
  /** Named in warnings. */
  readonly name: string;
  /** Draft tokens after the history of each request, in the order of the wishes; empty if there is no guess. */
  draft(wishes: readonly DraftWish[]): Promise<readonly (readonly number[])[]>;
  /** Estimated milliseconds to process the new tokens of the history. */
  readingMs(request: DraftRequest): number;
  /** Forgets a request, because it has ended or pauses. */
  release(request: DraftRequest): void;
  dispose(): Promise<void>;
}
