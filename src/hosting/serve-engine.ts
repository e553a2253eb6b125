/** Runs in the thread of a hosted engine: answers the caller's calls with an engine of this thread. */
import type { EmbedInput, EmbedOptions } from '../engine/embed-types.ts';
import type { RowWishes, SequenceHandle, StepOptions, StepRows } from '../engine/engine.ts';
import { loadEncoderEngine, loadEngine, type ModelSource } from '../engine/load.ts';
import type { LocalEncoder } from '../engine/local-encoder.ts';
import type { LocalEngine } from '../engine/local-engine.ts';
import type { LoadOptions } from '../engine/options.ts';
import { LanewiseError } from '../errors.ts';
import { flushLog } from '../profile/log.ts';
import { Trace, type TracePlace } from '../profile/trace.ts';
import { Recording } from '../recording/recorder.ts';
import type { GenerateSettings } from '../schedule/generation-options.ts';
import type { Request } from '../schedule/run.ts';
import { type Answering, answer, type Call, cancelled, Moved } from './answer.ts';
import { packError } from './error-data.ts';
import { receiveLevels } from './logs.ts';
import type { Port } from './messages.ts';
import { unpackPrompt } from './plain-data.ts';
import { packPromptFiles } from './prompt-files.ts';
import { packTokenizer } from './tokenizer-data.ts';

/** Platform-specific parts of the thread: finding the files of a model. */
export interface EnginePlatform {
  /** @param source as given to `hostedEngine` @returns `again`: a source that finds the same files later */
  open(
    source: unknown,
    signal: AbortSignal,
  ): Promise<{ source: ModelSource; again: unknown; explain?(error: unknown): unknown }>;
}

export type PlainLoadOptions = Omit<
  LoadOptions,
  'onProgress' | 'onWarning' | 'signal' | 'inline' | 'trace' | 'record'
> & {
  readonly trace?: TracePlace | undefined;
  readonly record?: Pick<Recording, 'source'> | undefined;
};

/** Rows of a step; sequences are given by the caller's numbers. */
export type PlainRows = Omit<StepRows, 'sequence'> & { readonly sequence: number; readonly expected: number };

export function serveEngine(port: Port, platform: EnginePlatform): void {
  let engine: LocalEngine | undefined;
  let encoder: LocalEncoder | undefined;
  const sequences = new Map<number, SequenceHandle>();
  const loaded = (): LocalEngine => engine ?? notLoaded();
  const sequenceOf = (id: number, expected: number): SequenceHandle => {
    const sequence = sequences.get(id) ?? loaded().sequence(expected);
    sequences.set(id, sequence);
    return sequence;
  };
  let answering: Answering;
  let trace: Trace | undefined;
  /** Loads what the caller named, and tells it how far that is. */
  const load = async <M>(
    { signal, emit }: Call,
    source: unknown,
    { trace: place, record: recorded, ...options }: PlainLoadOptions,
    make: (source: ModelSource, options: LoadOptions) => Promise<M>,
  ): Promise<{ made: M; again: unknown }> => {
    const found = await platform.open(source, signal);
    const onProgress = (done: number, total: number): void => emit([done, total]);
    const onWarning = (text: string): void => answering.warn(text);
    trace = place && new Trace((bytes) => answering.trace(bytes), {}, place);
    const record = recorded && new Recording((entry) => answering.record(entry), recorded);
    try {
      const made = await make(found.source, { ...options, trace, record, signal, onProgress, onWarning });
      return { made, again: found.again };
    } catch (error) {
      throw found.explain?.(error) ?? error;
    }
  };
  const methods = {
    async load(call: Call, source: unknown, options: PlainLoadOptions) {
      const { made, again } = await load(call, source, options, loadEngine);
      engine = made.engine;
      const buffers: ArrayBuffer[] = [];
      const prompts = packPromptFiles(engine.prompts.files, made.tokenizerSource, buffers);
      return new Moved({ info: engine.info, prompts, again }, buffers);
    },
    async loadEncoder(call: Call, source: unknown, options: PlainLoadOptions) {
      const { made, again } = await load(call, source, options, loadEncoderEngine);
      encoder = made.engine;
      const buffers: ArrayBuffer[] = [];
      const tokenizer = packTokenizer(made.tokenizerSource, buffers);
      return new Moved({ info: encoder.info, tokenizer, again }, buffers);
    },
    async embed({ signal }: Call, texts: readonly EmbedInput[], options: EmbedOptions) {
      const embeddings = await (encoder ?? notLoaded()).embed(texts, { ...options, signal });
      return new Moved(
        embeddings,
        embeddings.map(({ embedding }) => embedding.buffer as ArrayBuffer),
      );
    },
    submit(call: Call, prompt: unknown, settings: GenerateSettings, dropped: number | undefined) {
      return new Promise((resolve) => {
        const request: Request = { prompt: unpackPrompt(prompt), settings, dropped };
        const ticket = loaded().submit(request, (event) => {
          if (event.type !== 'done') call.emit(event);
          else resolve(event.error ? { ...event, error: packError(event.error) } : event);
        });
        const { signal } = call;
        const cancel = (): void => ticket.cancel(signal.reason === cancelled ? undefined : signal.reason);
        if (signal.aborted) cancel();
        else signal.addEventListener('abort', cancel, { once: true });
      });
    },
    async reserve(_: Call, id: number, expected: number, positions: number) {
      await sequenceOf(id, expected).reserve(positions);
    },
    async step(_: Call, parts: readonly PlainRows[], timing: StepOptions['timing']) {
      let report: unknown;
      const rows = parts.map(({ sequence, expected, ...rest }) => ({
        ...rest,
        sequence: sequenceOf(sequence, expected),
      }));
      const onReport = (given: unknown): void => void (report = given);
      const results = await loaded().step(rows, { timing, onReport });
      const own = results.map(({ logits, summary }) => ({ logits: logits.slice(), summary }));
      const lengths = rows.map(({ sequence }) => sequence.length);
      return new Moved(
        { results: own, lengths, report },
        own.map(({ logits }) => logits.buffer),
      );
    },
    truncate(_: Call, id: number, length: number) {
      sequences.get(id)?.truncate(length);
    },
    release(_: Call, id: number) {
      sequences.get(id)?.dispose();
      sequences.delete(id);
    },
    async evaluate(_: Call, rows: Omit<PlainRows, 'wanted'>, wishes: RowWishes) {
      const sequence = sequenceOf(rows.sequence, rows.expected);
      const results = await loaded().evaluate(sequence, rows.tokens, wishes);
      const moved = [...results.tensors.values()].map(({ values }) => values.buffer as ArrayBuffer);
      return new Moved({ ...results, length: sequence.length }, moved);
    },
    saveCache(_: Call, file: string) {
      return loaded().saveCache(file);
    },
    restoreCache(_: Call, file: string) {
      return loaded().restoreCache(file);
    },
    sendTrace() {
      trace?.flush();
    },
    async dispose() {
      await (engine ?? encoder)?.dispose();
      flushLog();
      trace?.flush();
    },
  };
  const state = (): unknown => {
    const made = engine ?? encoder;
    return made && { memory: made.memory(), stats: made.stats() };
  };
  answering = answer(port, methods, { state, onLog: receiveLevels((...record) => answering.log(...record)) });
}

function notLoaded(): never {
  throw new LanewiseError('Disposed', 'nothing is loaded');
}
