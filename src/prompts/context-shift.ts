/** Leaves out the oldest turns of a conversation that the context does not hold. */
import { OptionError } from '../errors.ts';
import type { ChatPrompt } from './chat.ts';
import { ContextLengthError } from './limits.ts';
import type { Prompt, PromptEncoder } from './prompt.ts';

/**
 * Ids of a conversation without its oldest turns, as far as they must go to leave room for an answer. System messages in
 * front stay, and the last turn; a turn is a message of a user and all up to the next one. Once turns must go, at most half of the
 * context stays in use, so that the following turns can share what was computed.
 * @param before messages left out before: with them left out again, the beginning is the same
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
  // Possible numbers of messages left out, each up to the beginning of a turn.
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
  // The fewest turns that must go.
  let [low, high] = [1, cuts.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    const ids = encode(cuts[middle]!);
    if (ids !== undefined && ids.length <= contextLength >> 1) high = middle;
    else low = middle + 1;
  }
  return { ids: encode(cuts[low]!)!, dropped: cuts[low]! };
}
