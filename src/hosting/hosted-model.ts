/** A model of either kind in a separate thread: its load, its last known state, its calls. */
import type { AnyEngine, LoadedInfo } from '../engine/loaded.ts';
import { type LoadOptions, validateLoad } from '../engine/options.ts';
import { FormatError, LanewiseError } from '../errors.ts';
import type { CallOptions } from './caller.ts';
import { passOn, wantedLevels } from './logs.ts';
import type { EngineThread } from './messages.ts';
import type { PlainLoadOptions } from './serve-engine.ts';
import { type Running, Supervisor } from './supervisor.ts';

export interface HostedSource {
  readonly start: () => EngineThread;
  /** The model's source, which can be cloned and is interpreted by the thread's platform. */
  readonly source: unknown;
  /** Name of the model, for errors. */
  readonly name: string;
}

/** Thrown if the engine's thread could not be started, or ended before it was ready. */
export class NotStarted extends Error {}

/** Result of a load in the thread; `again` is a source that finds the same files. */
interface LoadedData {
  readonly again: unknown;
  readonly info: LoadedInfo;
}

/** What must be the same when an engine is loaded again: prompts and options have been checked against it. */
const identity = ({ info: { contextLength, description } }: LoadedData): string =>
  JSON.stringify([contextLength, description.modelType, description.parameters, description.config]);

interface State<E extends AnyEngine> {
  readonly memory: ReturnType<E['memory']>;
  readonly stats: ReturnType<E['stats']>;
}

export class HostedModel<E extends AnyEngine, L extends LoadedData> {
  readonly #supervisor: Supervisor<L>;
  #name: string;
  #source: unknown;
  /** What the first load gave. */
  #loaded: L | undefined;
  #state: State<E> | undefined;
  #disposed: Promise<void> | undefined;

  /** @param method loads in the thread @throws OptionError */
  constructor({ start, source, name }: HostedSource, method: 'load' | 'loadEncoder', options: LoadOptions) {
    const { onProgress, onWarning, signal, trace, record, inline: _, ...rest } = options;
    validateLoad(options);
    const plain = (): PlainLoadOptions => ({
      ...rest,
      trace: trace?.place(),
      record: record && { source: record.source },
    });
    this.#name = name;
    this.#source = source;
    this.#supervisor = new Supervisor<L>({
      name: () => this.#name,
      start,
      load: async (caller) => {
        caller.wantLog(wantedLevels());
        const onEvent = (event: unknown): void => onProgress?.(...(event as [number, number]));
        const first = this.#loaded;
        if (!first) return caller.call<L>(method, [this.#source, plain()], { onEvent, signal });
        const again = await caller.call<L>(method, [this.#source, plain()]);
        if (identity(again) === identity(first)) return again;
        const what = 'the files of the model have changed since it was loaded; load it again';
        throw new FormatError('FileChanged', this.#name, what);
      },
      onState: (state) => {
        this.#state = state as State<E>;
      },
      onWarning,
      onLog: passOn,
      onRecord: record && ((entry) => record.add(entry)),
      onTrace: trace && ((bytes) => trace.add(bytes)),
    });
    trace?.attach(() => this.#sendTrace());
  }

  /** @throws what the load throws; NotStarted */
  async load(): Promise<L> {
    try {
      const { loaded } = await this.#supervisor.running();
      this.#source = loaded.again;
      this.#name = loaded.info.name;
      this.#loaded = loaded;
      return loaded;
    } catch (error) {
      throw this.#supervisor.started ? error : new NotStarted((error as Error).message, { cause: error });
    }
  }

  /** The state last sent by the engine: with every result, and every 100 ms with events. */
  get state(): State<E> {
    return this.#state!;
  }

  /** The running thread. @throws LanewiseError Disposed, EngineLost; errors of the load */
  async running(): Promise<Running<L>> {
    this.alive();
    const running = await this.#supervisor.running();
    running.caller.wantLog(wantedLevels());
    return running;
  }

  async call<T>(method: string, values: readonly unknown[], options?: CallOptions): Promise<T> {
    const { caller } = await this.running();
    return this.succeeded(caller.call<T>(method, values, options));
  }

  succeeded<T>(call: Promise<T>): Promise<T> {
    return this.#supervisor.succeeded(call);
  }

  /** Has the engine send its last events, unless it is gone. */
  async #sendTrace(): Promise<void> {
    if (this.#disposed || !this.#loaded) return;
    await this.call('sendTrace', []).catch(() => {});
  }

  dispose(): Promise<void> {
    this.#disposed ??= this.#supervisor.dispose();
    return this.#disposed;
  }

  /** @throws LanewiseError Disposed */
  alive(): void {
    if (this.#disposed) throw new LanewiseError('Disposed', `${this.#name} has been disposed`);
  }
}
