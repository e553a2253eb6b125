/** Fields that chat completions and completions have in common, and what they are for the library. */
import { z } from 'zod';
import type { GenerateOptions } from '../schedule/generation-options.ts';
import { ApiError } from './errors.ts';
import { ignored, used, type ValuesOf } from './fields.ts';

const number = z.number();
const count = z.int().min(0);

export const samplingFields = {
  model: used(z.string(), 'name of the model; default: the first one of the server'),
  stream: used(z.boolean(), 'answer with server-sent events'),
  stream_options: used(
    z.looseObject({ include_usage: z.boolean().nullish() }),
    '`include_usage`: a last chunk with the usage',
  ),
  max_tokens: used(count, 'most tokens to generate; the context is the limit in any case'),
  temperature: used(number, '0: always the most probable token'),
  top_p: used(number, 'only the most probable tokens that together reach this probability'),
  top_k: used(z.int(), 'only the k most probable tokens; 0 or -1: all'),
  min_p: used(number, 'only tokens at least this probable relative to the most probable one'),
  presence_penalty: used(number, 'subtracted once from the logits of tokens generated so far'),
  frequency_penalty: used(number, 'subtracted from the logit of a token for every time it was generated'),
  repetition_penalty: used(number, 'divides the logits of tokens of prompt and text so far'),
  seed: used(z.int(), 'the same seed gives the same text'),
  n: used(z.int().min(1).max(128), 'number of answers'),
  stop: used(z.union([z.string(), z.array(z.string())]), 'texts that end the answer and are not part of it'),
  logit_bias: used(z.record(z.string(), number), 'added to the logits of token ids'),
  stop_token_ids: used(z.array(count), 'further ids that end the answer'),
  ignore_eos: used(z.boolean(), 'go on behind end tokens'),
  priority: used(z.int(), 'lower numbers are served first'),
  user: ignored(z.string(), 'whom the request is for'),
} as const;

type SamplingValues = ValuesOf<typeof samplingFields>;

/** Options of the library. Null and left-out fields have the defaults of the model. */
export function samplingOptions(values: SamplingValues, maxTokens: number | undefined): GenerateOptions {
  return {
    maxTokens: maxTokens ?? -1,
    temperature: values.temperature,
    topP: values.top_p,
    topK: values.top_k,
    minP: values.min_p,
    presencePenalty: values.presence_penalty,
    frequencyPenalty: values.frequency_penalty,
    repetitionPenalty: values.repetition_penalty,
    seed: values.seed,
    n: values.n,
    stop: values.stop,
    logitBias: values.logit_bias,
    stopTokenIds: values.stop_token_ids,
    ignoreEos: values.ignore_eos,
    priority: values.priority,
  };
}

/** @throws ApiError for `stream_options` without `stream` */
export function wantsUsage({ stream, stream_options: options }: SamplingValues): boolean {
  if (options !== undefined && stream !== true)
    throw new ApiError('stream_options needs stream: true', {
      status: 400,
      code: 'invalid_value',
      param: 'stream_options',
    });
  return options?.include_usage === true;
}
