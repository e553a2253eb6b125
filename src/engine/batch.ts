/** Batches: many prompts of one caller in shared forwards. */
import { LanewiseError, OptionError } from '../errors.ts';
import { checkPrompt } from '../prompts/limits.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { OptionRules } from '../sampling/option-kinds.ts';
import { seedOfSample } from '../sampling/random.ts';
import { emptyResult, type GenerateEvent, type GenerateResult } from '../schedule/events.ts';
import { type GenerateOptions, type GenerateSettings, validateGenerate } from '../schedule/generation-options.ts';
import type { Ticket } from '../schedule/scheduler.ts';
import { onAbort } from './abort.ts';
import type { Engine } from './engine.ts';
import { EventQueue } from './event-queue.ts';
import { endError } from './generation.ts';
import { generationRules } from './sampling-defaults.ts';

export type BatchResult = GenerateResult;

/** A prompt of a batch, optionally with its own options. */
export type BatchPrompt = Prompt | { readonly prompt: Prompt; readonly options?: GenerateOptions };

/** An event with the index of its prompt in the batch, and of the sample of that prompt, both from 0. */
export type BatchEvent = GenerateEvent & { readonly index: number; readonly sample: number };

/** One sample of one prompt. */
interface Item {
  readonly index: number;
  readonly sample: number;
  readonly prompt: Prompt;
  /** The checked options, or their error. */
  readonly settings: GenerateSettings | LanewiseError;
  /** Other samples of the prompt. They start when this one has computed the prompt, and find it in the cache. */
  readonly followers: Item[];
}

/**
 * Events of many prompts, as they occur. An error of one prompt is in its `done` event; the others go on. Without
 * `seed` every prompt gets a random one; a given seed applies to every prompt.
 * @throws OptionError for the options common to all prompts, and for values that are not prompts
 */
export function generateStream(
  engine: Engine,
  prompts: readonly BatchPrompt[],
  options: GenerateOptions,
): AsyncGenerator<BatchEvent, void, undefined> {
  if (!Array.isArray(prompts) || prompts.length === 0)
    throw new OptionError('prompts', 'an array of at least one prompt', prompts);
  const rules = generationRules(engine.info);
  const common = validateGenerate(options, rules);
  checkConstraint(common, prompts.length);
  const items = prompts.map((prompt, index) => itemOf(prompt, options, index, rules));
  return stream(engine, items, common);
}

/** A constraint keeps the state of one text. @throws OptionError */
function checkConstraint({ constraint, n }: GenerateSettings, prompts: number): void {
  if (typeof constraint === 'object' && n * prompts > 1)
    throw new OptionError(
      'constraint',
      'a function that makes a constraint for each text, where there are several',
      constraint,
    );
}

function itemOf(given: BatchPrompt, common: GenerateOptions, index: number, rules: OptionRules<GenerateOptions>): Item {
  const own = typeof given === 'object' && given !== null && 'prompt' in given ? given : { prompt: given };
  const { prompt, options = {} } = own as { prompt: Prompt; options?: GenerateOptions };
  try {
    checkPrompt(prompt);
    if (typeof options !== 'object' || options === null) throw new OptionError('options', 'an object', options);
  } catch (error) {
    if (error instanceof LanewiseError) error.message = `prompts[${index}]: ${error.message}`;
    throw error;
  }
  try {
    const settings = validateGenerate({ ...common, ...options }, rules);
    checkConstraint(settings, 1);
    const followers = Array.from({ length: settings.n - 1 }, (_, i): Item => {
      const sample = i + 1;
      return {
        index,
        sample,
        prompt,
        settings: { ...settings, seed: seedOfSample(settings.seed, sample) },
        followers: [],
      };
    });
    return { index, sample: 0, prompt, settings, followers };
  } catch (error) {
    if (error instanceof LanewiseError) return { index, sample: 0, prompt, settings: error, followers: [] };
    throw error;
  }
}

async function* stream(
  engine: Engine,
  items: readonly Item[],
  common: GenerateSettings,
): AsyncGenerator<BatchEvent, void, undefined> {
  if (common.throwOnAbort) common.signal?.throwIfAborted();
  // Enough requests to fill forwards; the rest does not queue before other callers' requests.
  const most = 2 * engine.info.maxWanted;
  const events = new EventQueue<BatchEvent>();
  const tickets = new Set<Ticket>();
  const waiting = [...items].reverse();
  let left = items.reduce((sum, { followers }) => sum + 1 + followers.length, 0);
  let open = 0;
  let closed = false;
  const end = (item: Item, result: GenerateResult): void => {
    const { index, sample } = item;
    events.push({ index, sample, type: 'done', ...result });
    if (--left === 0) events.end();
  };
  const begin = (item: Item): void => {
    const { index, sample, prompt, settings } = item;
    const follow = (): void => void waiting.push(...item.followers.splice(0).reverse());
    if (settings instanceof LanewiseError) {
      end(item, emptyResult('error', 0, settings));
      return;
    }
    if (settings.signal?.aborted) {
      follow();
      end(item, emptyResult('aborted', settings.seed));
      return;
    }
    let quiet = (): void => {};
    let ended = false;
    const listener = (event: GenerateEvent): void => {
      if (event.type === 'token' || event.type === 'done') follow();
      if (event.type !== 'done') {
        events.push({ index, sample, ...event });
        return;
      }
      ended = true;
      quiet();
      if (ticket) tickets.delete(ticket);
      open--;
      const { type: _, ...result } = event;
      end(item, result);
      refill();
    };
    let ticket: Ticket | undefined;
    open++;
    try {
      ticket = engine.submit({ prompt, settings }, listener);
      if (ended) return;
      tickets.add(ticket);
      quiet = onAbort(settings.signal, () => ticket!.cancel());
    } catch (error) {
      open--;
      if (!(error instanceof LanewiseError)) throw error;
      if (error.code === 'Busy' && open > 0) {
        busy = true;
        waiting.push(item);
        return;
      }
      follow();
      end(item, emptyResult('error', settings.seed, error));
    }
  };
  let filling = false;
  /** Whether the queue is full: the rest waits until a request of this batch has ended. */
  let busy = false;
  const refill = (): void => {
    if (filling) return;
    filling = true;
    busy = false;
    while (!closed && !busy && open < most && waiting.length > 0) begin(waiting.pop()!);
    filling = false;
  };
  let aborted = false;
  let late = false;
  try {
    refill();
    for (let next = await events.next(); !next.done; next = await events.next()) {
      const event = next.value;
      yield event;
      if (event.type === 'token') refill();
      if (event.type !== 'done') continue;
      aborted ||= event.finishReason === 'aborted' && common.signal?.aborted === true;
      late ||= event.finishReason === 'timeout';
    }
  } finally {
    closed = true;
    for (const ticket of tickets) ticket.cancel();
  }
  for (const finishReason of [...(aborted ? ['aborted' as const] : []), ...(late ? ['timeout' as const] : [])]) {
    const error = endError({ finishReason }, common);
    if (error !== undefined) throw error;
  }
}

/** Results in the order of the prompts; samples of a prompt follow each other. @throws as `generateStream` */
export async function generateBatch(
  engine: Engine,
  prompts: readonly BatchPrompt[],
  options: GenerateOptions,
): Promise<BatchResult[]> {
  const results: BatchResult[][] = [];
  for await (const event of generateStream(engine, prompts, options)) {
    if (event.type !== 'done') continue;
    const { type: _, index, sample, ...result } = event;
    results[index] ??= [];
    results[index][sample] = result;
  }
  return results.flat();
}
