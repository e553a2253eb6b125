/** Parts of answers that chat completions and completions have in common. */
import type { FinishReason, GenerateResult, Usage } from '../schedule/events.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { TokenEvent } from './replies.ts';

/** Random part of an id. */
export const randomId = (): string => crypto.randomUUID().replaceAll('-', '').slice(0, 24);

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);

/** A full context and a timeout cut an answer as `max_tokens` does. */
export const finishOf = (reason: FinishReason): 'stop' | 'length' => (reason === 'stop' ? 'stop' : 'length');

/** The usage of an answer with its samples, which have one prompt. */
export function usageOf(results: readonly Pick<GenerateResult, 'usage'>[]): object {
  const sum = (count: (usage: Usage) => number): number => results.reduce((all, { usage }) => all + count(usage), 0);
  const prompt = results[0]?.usage.promptTokens ?? 0;
  const completion = sum(({ completionTokens }) => completionTokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: results[0]?.usage.cachedTokens ?? 0 },
    completion_tokens_details: { reasoning_tokens: 0 },
  };
}

export interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[] | null;
}

/** A token as log-probabilities name it: its bytes, and its text with a mark for incomplete characters. */
export function tokenLogprob(
  tokenizer: Tokenizer | undefined,
  { id, logprob }: { id: number; logprob: number },
): TokenLogprob {
  const bytes = tokenizer?.bytes(id);
  const token = bytes && bytes.length > 0 ? new TextDecoder().decode(bytes) : (tokenizer?.token(id) ?? `${id}`);
  // JSON has no infinities: a token without any probability.
  return { token, logprob: Math.max(logprob, -9999), bytes: bytes ? [...bytes] : null };
}

export const chatLogprobs = (tokenizer: Tokenizer | undefined, tokens: readonly TokenEvent[]): object => ({
  content: tokens.map((event) => ({
    ...tokenLogprob(tokenizer, event),
    top_logprobs: (event.top ?? []).map((one) => tokenLogprob(tokenizer, one)),
  })),
  refusal: null,
});
