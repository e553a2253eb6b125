/** The Engine interface over a connection to an engine in another thread. */
import type {
  Engine,
  EngineInfo,
  RowResults,
  RowWishes,
  SequenceHandle,
  StepLogits,
  StepOptions,
  StepRows,
} from '../engine/engine.ts';
import { asHosted } from '../engine/explain.ts';
import { type LoadOptions, validateLoad } from '../engine/options.ts';
import { LanewiseError, OptionError } from '../errors.ts';
import type { CacheFileContent } from '../evaluate/cache-file.ts';
import type { ForwardReport } from '../evaluate/forwards.ts';
import { PromptEncoder } from '../prompts/prompt.ts';
import { emptyResult, type GenerateEvent } from '../schedule/events.ts';
import type { GenerateSettings } from '../schedule/generation-options.ts';
import type { Request } from '../schedule/run.ts';
import type { Ticket } from '../schedule/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Caller } from './caller.ts';
import { type ErrorData, unpackError } from './error-data.ts';
import { HostedModel, type HostedSource } from './hosted-model.ts';
import { packPrompt } from './plain-data.ts';
import { HostedPromptFiles, type PromptData } from './prompt-files.ts';
import type { PlainRows } from './serve-engine.ts';

interface LoadedData {
  readonly info: EngineInfo;
  readonly prompts: PromptData;
  readonly again: unknown;
}

/** @throws OptionError, what the load throws; NotStarted */
export async function hostedEngine(hosted: HostedSource, options: LoadOptions): Promise<Engine> {
  const model = new HostedModel<Engine, LoadedData>(hosted, 'load', options);
  return new RemoteEngine(model, await model.load(), validateLoad(options).maxQueue);
}

class RemoteEngine implements Engine {
  readonly info: EngineInfo;
  readonly prompts: PromptEncoder;
  readonly #model: HostedModel<Engine, LoadedData>;
  readonly #maxQueue: number;
  /** Number of requests that have not ended. */
  #open = 0;
  #nextSequence = 0;

  constructor(model: HostedModel<Engine, LoadedData>, { info, prompts }: LoadedData, maxQueue: number) {
    this.info = { ...info, explanations: asHosted(info.explanations) };
    this.prompts = new PromptEncoder(new HostedPromptFiles(prompts));
    this.#model = model;
    this.#maxQueue = maxQueue;
  }

  get tokenizer(): Tokenizer | undefined {
    return this.prompts.files.tokenizer;
  }

  submit({ prompt, settings, dropped }: Request, listener: (event: GenerateEvent) => void): Ticket {
    this.#model.alive();
    const { maxRows, maxWanted } = this.info;
    if (this.#open >= this.#maxQueue + Math.min(maxRows, maxWanted))
      throw new LanewiseError('Busy', `${this.#maxQueue} requests wait already: try again later, or raise maxQueue`);
    const values = [packPrompt(prompt), plainSettings(settings), dropped];
    const controller = new AbortController();
    this.#open++;
    void this.#answer(values, settings.seed, controller.signal, listener);
    return { cancel: (reason) => controller.abort(reason) };
  }

  async #answer(
    values: readonly unknown[],
    seed: number,
    signal: AbortSignal,
    listener: (event: GenerateEvent) => void,
  ): Promise<void> {
    const told = new Told();
    const hear = (event: unknown): void => {
      told.add(event as GenerateEvent);
      tell(listener, event as GenerateEvent);
    };
    let done: GenerateEvent;
    try {
      const { caller } = await this.#model.running();
      const call = caller.call<GenerateEvent & { error?: ErrorData }>('submit', values, {
        onEvent: hear,
        cancel: signal,
      });
      const event = await this.#model.succeeded(call);
      done = (event.error ? { ...event, error: unpackError(event.error) } : event) as GenerateEvent;
    } catch (error) {
      done = { type: 'done', ...told.result(seed, asError(error)) };
    }
    this.#open--;
    tell(listener, done);
  }

  sequence(expected: number): SequenceHandle {
    this.#model.alive();
    return new RemoteSequence(this.#nextSequence++, expected, () => this.#model.running());
  }

  async step(parts: readonly StepRows[], { timing, onReport }: StepOptions): Promise<StepLogits[]> {
    this.#model.alive();
    if (!Array.isArray(parts)) throw new OptionError('parts', 'an array of at least one part', parts);
    const { caller } = await this.#model.running();
    const rows = parts.map(({ sequence, tokens, wanted }): PlainRows => {
      if (!(sequence instanceof RemoteSequence))
        throw new OptionError('sequence', 'a sequence of this model', sequence);
      return { ...sequence.in(caller), tokens, wanted };
    });
    const call = caller.call<{ results: StepLogits[]; lengths: number[]; report: ForwardReport }>('step', [
      rows,
      timing,
    ]);
    const { results, lengths, report } = await this.#model.succeeded(call);
    for (const [i, { sequence }] of parts.entries()) (sequence as RemoteSequence).length = lengths[i]!;
    onReport?.(report);
    return results;
  }

  async evaluate(sequence: SequenceHandle, tokens: readonly number[], wishes: RowWishes): Promise<RowResults> {
    this.#model.alive();
    const { caller } = await this.#model.running();
    if (!(sequence instanceof RemoteSequence)) throw new OptionError('sequence', 'a sequence of this model', sequence);
    const call = caller.call<RowResults & { readonly length: number }>('evaluate', [
      { ...sequence.in(caller), tokens },
      wishes,
    ]);
    const { length, ...results } = await this.#model.succeeded(call);
    sequence.length = length;
    return results;
  }

  async saveCache(file: string): Promise<CacheFileContent> {
    return this.#model.call('saveCache', [file]);
  }

  async restoreCache(file: string): Promise<CacheFileContent> {
    return this.#model.call('restoreCache', [file]);
  }

  memory(): ReturnType<Engine['memory']> {
    return this.#model.state.memory;
  }

  stats(): ReturnType<Engine['stats']> {
    return this.#model.state.stats;
  }

  dispose(): Promise<void> {
    return this.#model.dispose().finally(() => this.prompts.dispose());
  }
}

/** A sequence in the cache of the engine that is running when it is first used. */
class RemoteSequence implements SequenceHandle {
  length = 0;
  readonly #id: number;
  readonly #expected: number;
  readonly #running: () => Promise<{ readonly caller: Caller }>;
  #caller: Caller | undefined;
  #disposed = false;

  constructor(id: number, expected: number, running: () => Promise<{ readonly caller: Caller }>) {
    this.#id = id;
    this.#expected = expected;
    this.#running = running;
  }

  /** Id of the sequence in the engine. @throws LanewiseError Disposed; EngineLost if its engine was lost */
  in(caller: Caller): Pick<PlainRows, 'sequence' | 'expected'> {
    if (this.#disposed) throw new LanewiseError('Disposed', 'the sequence has been disposed');
    this.#caller ??= caller;
    if (this.#caller.failure) throw this.#caller.failure;
    return { sequence: this.#id, expected: this.#expected };
  }

  async reserve(positions: number): Promise<void> {
    const { caller } = await this.#running();
    const { sequence, expected } = this.in(caller);
    await caller.call('reserve', [sequence, expected, positions]);
  }

  truncate(length: number): void {
    if (length >= this.length) return;
    this.length = length;
    this.#send('truncate', length);
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#send('release');
  }

  /** Sends a call and ignores its errors: a lost engine needs no cleanup. */
  #send(method: string, ...values: readonly unknown[]): void {
    this.#caller?.call(method, [this.#id, ...values]).catch(() => {});
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Collects the events of a request, for its result if the engine is lost. */
class Told {
  readonly #ids: number[] = [];
  #text = '';

  add(event: GenerateEvent): void {
    if (event.type === 'token') this.#ids.push(event.id);
    if (event.type === 'token' || event.type === 'text') this.#text += event.text;
  }

  result(seed: number, error: LanewiseError): Omit<Extract<GenerateEvent, { type: 'done' }>, 'type'> {
    const empty = emptyResult('error', seed, error);
    const usage = { ...empty.usage, completionTokens: this.#ids.length };
    return { ...empty, tokenIds: this.#ids, text: this.#text, usage };
  }
}

/** Calls a listener; its errors must not affect other requests. */
function tell(listener: (event: GenerateEvent) => void, event: GenerateEvent): void {
  try {
    listener(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Settings that can be sent: without the signal, which the facades observe. @throws OptionError for functions */
function plainSettings(settings: GenerateSettings): GenerateSettings {
  const plain: Record<string, unknown> = { ...settings, signal: undefined };
  for (const [option, value] of Object.entries(plain)) {
    const has = typeof value === 'function' || (typeof value === 'object' && value !== null && hasMethods(value));
    if (has)
      throw new OptionError(
        option,
        'left out where the engine has a thread of its own (load with inline: true)',
        value,
      );
  }
  return plain as unknown as GenerateSettings;
}

const hasMethods = (value: object): boolean =>
  !(value instanceof Map || value instanceof Set || Array.isArray(value)) &&
  (Object.values(value).some((item) => typeof item === 'function') ||
    ![Object.prototype, null].includes(Object.getPrototypeOf(value)));

const asError = (error: unknown): LanewiseError =>
  error instanceof LanewiseError
    ? error
    : new LanewiseError('Internal', `a request failed: ${(error as Error)?.message ?? error}`, { cause: error });
