/** An engine in a thread of its own, as the facades see it. */
import type {
  Engine,
  EngineInfo,
  NamedRows,
  SequenceHandle,
  StepLogits,
  StepOptions,
  StepRows,
} from '../engine/engine.ts';
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
import { passOn, wantedLevels } from './logs.ts';
import type { EngineThread } from './messages.ts';
import { packPrompt } from './plain-data.ts';
import { HostedPromptFiles, type PromptData } from './prompt-files.ts';
import type { PlainLoadOptions, PlainRows } from './serve-engine.ts';
import { Supervisor } from './supervisor.ts';

interface Loaded {
  readonly info: EngineInfo;
  readonly prompts: PromptData;
  /** What finds the same files once more. */
  readonly again: unknown;
}

interface State {
  readonly memory: ReturnType<Engine['memory']>;
  readonly stats: ReturnType<Engine['stats']>;
}

export interface HostedSource {
  readonly start: () => EngineThread;
  /** Can be cloned; the thread's platform knows what it means. */
  readonly source: unknown;
  /** For messages. */
  readonly name: string;
}

/** The engine's thread could not be started: there is none, or it ended before it took a call. */
export class NotStarted extends Error {}

/** @throws what the load throws; NotStarted */
export async function hostedEngine(hosted: HostedSource, options: LoadOptions): Promise<Engine> {
  const engine = new RemoteEngine(hosted, options, validateLoad(options).maxQueue);
  await engine.load();
  return engine;
}

class RemoteEngine implements Engine {
  info!: EngineInfo;
  prompts!: PromptEncoder;
  readonly #supervisor: Supervisor<Loaded>;
  readonly #maxQueue: number;
  #source: unknown;
  #state: State | undefined;
  /** Requests whose end has not been heard. */
  #open = 0;
  #nextSequence = 0;
  #disposed: Promise<void> | undefined;

  constructor({ start, source, name }: HostedSource, options: LoadOptions, maxQueue: number) {
    const { onProgress, onWarning, signal, inline: _, ...rest } = options;
    const plain: PlainLoadOptions = rest;
    this.#source = source;
    this.#maxQueue = maxQueue;
    let first = true;
    this.#supervisor = new Supervisor<Loaded>({
      name: () => this.info?.name ?? name,
      start,
      load: (caller) => {
        caller.wantLog(wantedLevels());
        const told = first ? { onEvent: (event: unknown) => onProgress?.(...(event as [number, number])), signal } : {};
        first = false;
        return caller.call<Loaded>('load', [this.#source, plain], told);
      },
      onState: (state) => {
        this.#state = state as State;
      },
      onWarning,
      onLog: passOn,
    });
  }

  async load(): Promise<void> {
    try {
      const { loaded } = await this.#supervisor.running();
      this.info = loaded.info;
      this.prompts = new PromptEncoder(new HostedPromptFiles(loaded.prompts));
      this.#source = loaded.again;
    } catch (error) {
      throw this.#supervisor.started ? error : new NotStarted((error as Error).message, { cause: error });
    }
  }

  get tokenizer(): Tokenizer | undefined {
    return this.prompts.files.tokenizer;
  }

  submit({ prompt, settings, dropped }: Request, listener: (event: GenerateEvent) => void): Ticket {
    this.#alive();
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
      const { caller } = await this.#running();
      const call = caller.call<GenerateEvent & { error?: ErrorData }>('submit', values, {
        onEvent: hear,
        cancel: signal,
      });
      const event = await this.#supervisor.succeeded(call);
      done = (event.error ? { ...event, error: unpackError(event.error) } : event) as GenerateEvent;
    } catch (error) {
      done = { type: 'done', ...told.result(seed, asError(error)) };
    }
    this.#open--;
    tell(listener, done);
  }

  sequence(expected: number): SequenceHandle {
    this.#alive();
    return new RemoteSequence(this.#nextSequence++, expected, () => this.#running());
  }

  async step(parts: readonly StepRows[], { timing, onReport }: StepOptions): Promise<StepLogits[]> {
    this.#alive();
    if (!Array.isArray(parts)) throw new OptionError('parts', 'an array of at least one part', parts);
    const { caller } = await this.#running();
    const rows = parts.map(({ sequence, tokens, wanted }): PlainRows => {
      if (!(sequence instanceof RemoteSequence))
        throw new OptionError('sequence', 'a sequence of this model', sequence);
      return { ...sequence.in(caller), tokens, wanted };
    });
    const call = caller.call<{ results: StepLogits[]; lengths: number[]; report: ForwardReport }>('step', [
      rows,
      timing,
    ]);
    const { results, lengths, report } = await this.#supervisor.succeeded(call);
    for (const [i, { sequence }] of parts.entries()) (sequence as RemoteSequence).length = lengths[i]!;
    onReport?.(report);
    return results;
  }

  async forward(tokenIds: readonly number[]): Promise<NamedRows> {
    this.#alive();
    const { caller } = await this.#running();
    return this.#supervisor.succeeded(caller.call<NamedRows>('forward', [tokenIds]));
  }

  saveCache(file: string): Promise<CacheFileContent> {
    return this.#withCache('saveCache', file);
  }

  restoreCache(file: string): Promise<CacheFileContent> {
    return this.#withCache('restoreCache', file);
  }

  async #withCache(method: string, file: string): Promise<CacheFileContent> {
    this.#alive();
    const { caller } = await this.#running();
    return this.#supervisor.succeeded(caller.call<CacheFileContent>(method, [file]));
  }

  /** As the engine last told: with every result, and every 100 ms while it tells events. */
  memory(): ReturnType<Engine['memory']> {
    return this.#state!.memory;
  }

  /** As `memory`. */
  stats(): ReturnType<Engine['stats']> {
    return this.#state!.stats;
  }

  dispose(): Promise<void> {
    this.#disposed ??= this.#supervisor.dispose();
    return this.#disposed;
  }

  async #running(): ReturnType<Supervisor<Loaded>['running']> {
    const running = await this.#supervisor.running();
    running.caller.wantLog(wantedLevels());
    return running;
  }

  #alive(): void {
    if (this.#disposed) throw new LanewiseError('Disposed', `${this.info.name} has been disposed`);
  }
}

/** A sequence in the cache of the engine that runs when it is first used. */
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

  /** How the engine knows it. @throws LanewiseError Disposed; EngineLost where its engine is no more */
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

  /** Nothing to send to an engine that is lost. */
  #send(method: string, ...values: readonly unknown[]): void {
    this.#caller?.call(method, [this.#id, ...values]).catch(() => {});
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What a request has told, for a result that the engine cannot tell any more. */
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

/** A listener that throws harms nobody else. */
function tell(listener: (event: GenerateEvent) => void, event: GenerateEvent): void {
  try {
    listener(event);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Settings without what stays here: the facades listen to the signal. @throws OptionError for functions */
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
