/** Errors as answers: every fault of a request becomes a status, a code and the field at fault. */
import { LanewiseError, OptionError } from '../errors.ts';

export interface ApiErrorFields {
  readonly status: 400 | 401 | 403 | 404 | 408 | 413 | 415 | 429 | 500 | 503;
  /** A stable word for programs. */
  readonly code: string;
  /** The field of the request at fault. */
  readonly param?: string | undefined;
  /** Seconds after which the client may try again. */
  readonly retryAfter?: number;
}

export class ApiError extends Error {
  readonly fields: ApiErrorFields;

  constructor(message: string, fields: ApiErrorFields) {
    super(message);
    this.name = 'ApiError';
    this.fields = fields;
  }
}

/** `type` of an error object of OpenAI's API. */
export const errorType = (status: number): string => {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 404) return 'not_found_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
};

/** Options of the library that have other names in requests. */
const fieldNames: Readonly<Record<string, string>> = {
  temperature: 'temperature',
  topK: 'top_k',
  topP: 'top_p',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
  maxTokens: 'max_tokens',
  logitBias: 'logit_bias',
  stopTokenIds: 'stop_token_ids',
  ignoreEos: 'ignore_eos',
};

/** The answer to any error. Messages of bugs are not shown to clients. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof OptionError) {
    const [name = ''] = /^\w+/.exec(error.option) ?? [];
    const param = (fieldNames[name] ?? name) + error.option.slice(name.length);
    return new ApiError(error.message.replace(error.option, param), { status: 400, code: 'invalid_value', param });
  }
  if (!(error instanceof LanewiseError))
    return new ApiError('internal error; see the log of the server', { status: 500, code: 'internal_error' });
  const { code, message } = error;
  switch (code) {
    case 'ContextLengthExceeded':
      return new ApiError(message, { status: 400, code: 'context_length_exceeded', param: 'messages' });
    case 'Busy':
      return new ApiError(message, { status: 429, code: 'queue_full', retryAfter: 1 });
    case 'OutOfMemory':
      return new ApiError(message, { status: 503, code: 'out_of_memory', retryAfter: 1 });
    case 'EngineLost':
    case 'Disposed':
      return new ApiError(message, { status: 503, code: 'model_unavailable', retryAfter: 1 });
    case 'Raised':
    case 'InvalidTemplate':
    case 'InvalidData':
    case 'NoChatTemplate':
    case 'NoTokenizer':
      return new ApiError(message, { status: 400, code: 'chat_template_error', param: 'messages' });
    default:
      return new ApiError(message, { status: 500, code: 'generation_failed' });
  }
}

/** Body of an error answer of OpenAI's API. */
export const openaiError = ({ message, fields: { status, code, param } }: ApiError): object => ({
  error: { message, type: errorType(status), param: param ?? null, code },
});
