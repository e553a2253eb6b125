/** One reply to one request, whatever protocol asked for it. */
import type { Model } from '../engine/model.ts';
import { LanewiseError } from '../errors.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { GenerateEvent, GenerateResult } from '../schedule/events.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';

export type ReplyEvent = GenerateEvent & { readonly sample: number };

export interface Reply {
  /** Events of all samples as they come; the last of each is `done`. A sample's error is thrown. */
  events(): AsyncGenerator<ReplyEvent, void, undefined>;
}

/**
 * Starts a reply and waits for its first event, at most `patienceMs`: what is wrong with a request is thrown here, before an
 * answer begins.
 * @throws LanewiseError
 */
export async function startReply(
  model: Model,
  prompt: Prompt,
  { n = 1, ...options }: GenerateOptions,
  patienceMs = 2000,
): Promise<Reply> {
  const quiet = { ...options, throwOnAbort: false, throwOnTimeout: false };
  const source: AsyncGenerator<ReplyEvent, void, undefined> =
    n === 1 ? single(model, prompt, quiet) : several(model, prompt, { ...quiet, n });
  const first = source.next();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, patienceMs);
  });
  try {
    await Promise.race([first, patience]);
  } finally {
    clearTimeout(timer);
  }
  // Whoever reads the events meets the error; nobody may.
  first.catch(() => {});
  return {
    async *events() {
      try {
        const begun = await first;
        if (!begun.done) yield begun.value;
        yield* source;
      } finally {
        await source.return();
      }
    },
  };
}

async function* single(
  model: Model,
  prompt: Prompt,
  options: GenerateOptions,
): AsyncGenerator<ReplyEvent, void, undefined> {
  for await (const event of model.generate(prompt, options)) yield { ...event, sample: 0 };
}

async function* several(
  model: Model,
  prompt: Prompt,
  options: GenerateOptions,
): AsyncGenerator<ReplyEvent, void, undefined> {
  for await (const event of model.generateStream([prompt], options)) {
    if (event.type === 'done' && event.error) throw event.error;
    yield event;
  }
}

/** The results of all samples. @throws LanewiseError */
export async function resultsOf(reply: Reply): Promise<{ result: GenerateResult; tokens: TokenEvent[] }[]> {
  const found: { result?: GenerateResult; tokens: TokenEvent[] }[] = [];
  for await (const event of reply.events()) {
    const own = (found[event.sample] ??= { tokens: [] });
    if (event.type === 'token') own.tokens.push(event);
    if (event.type === 'done') own.result = event;
  }
  return found.map(({ result, tokens }) => {
    if (!result) throw new LanewiseError('Internal', 'a sample ended without a result');
    return { result, tokens };
  });
}

export type TokenEvent = Extract<GenerateEvent, { type: 'token' }>;
