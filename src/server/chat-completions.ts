/** POST /v1/chat/completions: OpenAI's chat completions, whole and as a stream. */
import { z } from 'zod';
import type { Message } from '../chat/messages.ts';
import type { Model } from '../engine/model.ts';
import type { ChatPrompt } from '../prompts/chat.ts';
import type { GenerateResult } from '../schedule/events.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';
import { ignored, refused, used, type ValuesOf } from './fields.ts';
import { samplingFields, samplingOptions } from './openai-fields.ts';
import { chatLogprobs, finishOf, nowSeconds, randomId, usageOf } from './openai-results.ts';
import { type Reply, resultsOf, type TokenEvent } from './replies.ts';
import type { SseEvent } from './sse.ts';

const empty = (value: unknown): boolean => Array.isArray(value) && value.length === 0;

export const chatFields = {
  ...samplingFields,
  messages: used(
    z.array(z.looseObject({ role: z.string() })).min(1),
    'the conversation: {role, content}; content is a text or parts of text',
  ),
  max_completion_tokens: used(z.int().min(0), 'the same as max_tokens, which it overrides'),
  logprobs: used(z.boolean(), 'log-probabilities of the tokens, before sampling changes them'),
  top_logprobs: used(z.int().min(0).max(20), 'so many of the most probable tokens beside each'),
  chat_template_kwargs: used(z.record(z.string(), z.unknown()), 'variables of the chat template'),
  reasoning_effort: used(z.string(), 'variable `reasoning_effort` of the chat template'),
  tools: refused(z.array(z.unknown()), 'functions cannot be called yet', empty),
  functions: refused(z.array(z.unknown()), 'functions cannot be called yet', empty),
  tool_choice: refused(z.unknown(), 'functions cannot be called yet', (value) => value === 'none' || value === 'auto'),
  response_format: refused(
    z.unknown(),
    'only text answers for now',
    (value) => (value as { type?: unknown } | null)?.type === 'text',
  ),
  parallel_tool_calls: ignored(z.boolean(), 'without functions it has no effect'),
  store: ignored(z.boolean(), 'nothing is stored'),
  metadata: ignored(z.unknown(), 'nothing is stored'),
  service_tier: ignored(z.string(), 'all requests are served alike'),
  prompt_cache_key: ignored(z.string(), 'prompts with the same beginning share it without a key'),
} as const;

export type ChatValues = ValuesOf<typeof chatFields>;

export function chatPrompt({
  messages,
  chat_template_kwargs: kwargs,
  reasoning_effort: effort,
}: ChatValues): ChatPrompt {
  const variables = { ...(effort !== undefined && { reasoning_effort: effort }), ...kwargs };
  return { messages: messages!.map(asMessage), variables };
}

/** `developer` is the new name of `system`, which templates know. */
const asMessage = (message: { readonly role: string }): Message =>
  ({ ...message, role: message.role === 'developer' ? 'system' : message.role }) as Message;

export function chatOptions(values: ChatValues): GenerateOptions {
  const { max_completion_tokens: limit, max_tokens: older, logprobs, top_logprobs: top = 0 } = values;
  return { ...samplingOptions(values, limit ?? older), logprobs: logprobs ? top : 0 };
}

export interface ChatCompletion {
  readonly model: Model;
  /** The name that the answer gives. */
  readonly name: string;
  readonly fingerprint: string;
  readonly logprobs: boolean;
}

const head = ({ name, fingerprint }: ChatCompletion, object: string): object => ({
  id: `chatcmpl-${randomId()}`,
  object,
  created: nowSeconds(),
  model: name,
  system_fingerprint: fingerprint,
});

/** The whole answer. @throws LanewiseError */
export async function chatCompletion(reply: Reply, chat: ChatCompletion): Promise<object> {
  const results = await resultsOf(reply);
  return {
    ...head(chat, 'chat.completion'),
    choices: results.map(({ result, tokens }, index) => ({
      index,
      message: { role: 'assistant', content: result.text, refusal: null },
      logprobs: chat.logprobs ? chatLogprobs(chat.model.tokenizer, tokens) : null,
      finish_reason: finishOf(result.finishReason),
    })),
    usage: usageOf(results.map(({ result }) => result)),
  };
}

/** The answer as a stream. */
export async function* chatChunks(
  reply: Reply,
  chat: ChatCompletion & { readonly includeUsage: boolean },
): AsyncGenerator<SseEvent, void, undefined> {
  const own = head(chat, 'chat.completion.chunk');
  const chunk = (index: number, delta: object, logprobs: object | null, finish: string | null): SseEvent => ({
    data: JSON.stringify({ ...own, choices: [{ index, delta, logprobs, finish_reason: finish }] }),
  });
  const begun = new Set<number>();
  const done: GenerateResult[] = [];
  for await (const event of reply.events()) {
    const { sample } = event;
    if (!begun.has(sample) && event.type !== 'prefill') {
      begun.add(sample);
      yield chunk(sample, { role: 'assistant', content: '' }, null, null);
    }
    if (event.type === 'token' && (event.text !== '' || chat.logprobs))
      yield chunk(sample, { content: event.text }, logprobsOf(chat, event), null);
    if (event.type === 'text') yield chunk(sample, { content: event.text }, null, null);
    if (event.type !== 'done') continue;
    done.push(event);
    yield chunk(sample, {}, null, finishOf(event.finishReason));
  }
  if (chat.includeUsage) yield { data: JSON.stringify({ ...own, choices: [], usage: usageOf(done) }) };
  yield { data: '[DONE]' };
}

const logprobsOf = ({ logprobs, model }: ChatCompletion, event: TokenEvent): object | null =>
  logprobs ? chatLogprobs(model.tokenizer, [event]) : null;
