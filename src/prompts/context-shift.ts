/** Drops the oldest turns of a conversation that does not fit in the context. */
import { OptionError } from '../errors.ts';
import type { ChatPrompt } from './chat.ts';
import { ContextLengthError } from './limits.ts';
import type { Prompt, PromptEncoder } from './prompt.ts';

/**
 * Token ids of a conversation without as many of its oldest turns as needed to leave room for an answer. A turn is a user
 * message and all messages up to the next one. System messages at the beginning and the last turn are kept. If turns are
 * dropped, the rest takes at most half of the context, so that the following turns can reuse its keys and values.
 * @param before number of messages dropped in earlier turns; they are dropped again, so that the prompt begins in the
 * same way
 * @throws OptionError for prompts without messages; ContextLengthError is left to the caller's check
 */
export function encodeShifted(
  prompts: PromptEncoder,
  prompt: Prompt,
  maxTokens: number,
  before = 0,
): { ids: number[]; dropped: number } {
  if (typeof prompt !== 'object' || prompt === null || !('messages' in prompt))
    throw new OptionError('contextShift', 'false for a prompt without messages, which has no turns to leave out', true);
  const { contextLength } = prompts.files;
  const room = contextLength - Math.min(maxTokens, contextLength >> 2);
  const { messages } = prompt;
  const head = messages.findIndex(({ role }) => role !== 'system' && role !== 'developer');
  const users = messages.flatMap(({ role }, i) => (role === 'user' ? [i] : []));
  // Possible numbers of dropped messages: up to the beginning of each turn.
  const cuts = [0, ...users.slice(1).map((start) => start - head)];
  const encode = (dropped: number): number[] | undefined => {
    const kept = [...messages.slice(0, Math.max(head, 0)), ...messages.slice(head + dropped)];
    try {
      return prompts.encode({ ...prompt, messages: dropped === 0 ? messages : kept } satisfies ChatPrompt);
    } catch (error) {
      if (error instanceof ContextLengthError && dropped !== cuts.at(-1)) return undefined;
      throw error;
    }
  };
  const whole = encode(0);
  if (cuts.length === 1 || (whole !== undefined && whole.length <= room)) return { ids: whole ?? [], dropped: 0 };
  const same = cuts.includes(before) && before > 0 ? encode(before) : undefined;
  if (same && same.length <= room) return { ids: same, dropped: before };
  // Binary search for the fewest turns to drop.
  let [low, high] = [1, cuts.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    const ids = encode(cuts[middle]!);
    if (ids !== undefined && ids.length <= contextLength >> 1) high = middle;
    else low = middle + 1;
  }
  return { ids: encode(cuts[low]!)!, dropped: cuts[low]! };
}
