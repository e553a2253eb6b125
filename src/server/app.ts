/** The routes of the server, without a network: the same app runs behind any HTTP server that speaks fetch. */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { chatChunks, chatCompletion, chatFields, chatOptions, chatPrompt } from './chat-completions.ts';
import { ApiError, asApiError, openaiError } from './errors.ts';
import { readBody } from './fields.ts';
import type { Models, ServedModel } from './models.ts';
import { wantsUsage } from './openai-fields.ts';
import { startReply } from './replies.ts';
import { type SseEvent, sseBody, sseHeaders } from './sse.ts';

export interface AppOptions {
  readonly models: Models;
  readonly version: string;
  /** Whether a request has a key that it needs. Default: none is needed. */
  readonly mayAsk?: (headers: Headers) => boolean;
  /** Most bytes of a request's body. */
  readonly maxBodyBytes: number;
  /** Called with errors that are bugs. */
  readonly onBug: (error: unknown) => void;
  /** Whether the server is ending: it takes no more requests. */
  readonly draining?: () => boolean;
}

/** Paths that answer without a key. */
const open = new Set(['/health', '/ready']);

export function createApp({ models, version, mayAsk, maxBodyBytes, onBug, draining = () => false }: AppOptions): Hono {
  const app = new Hono({ strict: false });

  app.onError((error, c) => answer(c, known(error, onBug)));
  app.notFound((c) =>
    answer(c, new ApiError(`there is no ${c.req.method} ${c.req.path}`, { status: 404, code: 'not_found' })),
  );
  app.use(async (c, next) => {
    if (mayAsk !== undefined && !open.has(c.req.path) && !mayAsk(c.req.raw.headers))
      throw new ApiError('the API key is missing or wrong', { status: 401, code: 'invalid_api_key' });
    await next();
  });
  app.use(
    bodyLimit({
      maxSize: maxBodyBytes,
      onError: () => {
        throw new ApiError(`the body must have at most ${maxBodyBytes} bytes`, { status: 413, code: 'body_too_large' });
      },
    }),
  );

  app.get('/health', (c) => (draining() ? c.json({ status: 'draining' }, 503) : c.json({ status: 'ok' })));
  app.get('/ready', (c) => (draining() ? c.json({ status: 'draining' }, 503) : c.json({ status: 'ready' })));
  app.get('/version', (c) => c.json({ version }));
  app.get('/v1/models', (c) => c.json({ object: 'list', data: models.all().map(modelObject) }));
  app.get('/v1/models/:name{.+}', (c) => c.json(modelObject(models.find(c.req.param('name')))));

  app.post('/v1/chat/completions', async (c) => {
    const { values, ignored } = readBody(chatFields, await jsonOf(c));
    const includeUsage = wantsUsage(values);
    if (values.messages === undefined)
      throw new ApiError('messages is required', { status: 400, code: 'missing_field', param: 'messages' });
    const { model, name } = models.find(values.model);
    const { signal } = c.req.raw;
    const reply = await startReply(model, chatPrompt(values), { ...chatOptions(values), signal });
    const chat = { model, name, fingerprint: `lanewise-${version}`, logprobs: values.logprobs === true };
    const headers: Record<string, string> = ignored.length > 0 ? { 'x-lanewise-ignored': ignored.join(', ') } : {};
    if (values.stream !== true) return c.json(await chatCompletion(reply, chat), 200, headers);
    const events = guarded(chatChunks(reply, { ...chat, includeUsage }), onBug);
    return c.body(sseBody(events), 200, { ...sseHeaders, ...headers });
  });
  return app;
}

/** After the answer has begun, an error is an event of it. */
async function* guarded(
  events: AsyncGenerator<SseEvent, void, undefined>,
  onBug: (error: unknown) => void,
): AsyncGenerator<SseEvent, void, undefined> {
  try {
    yield* events;
  } catch (error) {
    yield { data: JSON.stringify(openaiError(known(error, onBug))) };
  }
}

function known(error: unknown, onBug: (error: unknown) => void): ApiError {
  const known = asApiError(error);
  if (known.fields.code === 'internal_error') onBug(error);
  return known;
}

function answer(c: Context, error: ApiError): Response {
  const { status, retryAfter } = error.fields;
  return c.json(openaiError(error), status, retryAfter === undefined ? {} : { 'retry-after': `${retryAfter}` });
}

/** @throws ApiError for bodies that are compressed or no JSON */
async function jsonOf(c: Context): Promise<unknown> {
  const encoding = c.req.header('content-encoding');
  if (encoding !== undefined && encoding !== 'identity')
    throw new ApiError(`content-encoding must be left out, got ${encoding.slice(0, 40)}`, {
      status: 415,
      code: 'unsupported_encoding',
    });
  const text = await c.req.text();
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = `the body must be JSON: ${(error as Error).message.slice(0, 200)}`;
    throw new ApiError(message, { status: 400, code: 'invalid_json' });
  }
}

const modelObject = ({ name, root, created, model }: ServedModel): object => ({
  id: name,
  object: 'model',
  created,
  owned_by: 'lanewise',
  root,
  max_model_len: model.contextLength,
});
