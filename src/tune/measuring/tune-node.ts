/** Tunes the storage of a model's weights, with measurements kept beside the plan. */
import { rm } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { calibrationTexts } from '../../calibrate/texts.ts';
import { writeQuantized } from '../../convert/quantize-node.ts';
import type { ModelSource } from '../../engine/load.ts';
import { tokenizerBeside, withinVocabulary } from '../../engine/tokenizer.ts';
import { OptionError } from '../../errors.ts';
import { nodeFolder } from '../../formats/adapters/node.ts';
import type { FileFolder } from '../../formats/bytes.ts';
import { timeShapes } from '../../measure/shapes.ts';
import { median } from '../../measure/statistics.ts';
import type { StoragePlan } from '../../models/storage-plan.ts';
import type { Storage } from '../../quant/storage.ts';
import type { Budget } from '../budget.ts';
import type { Measures } from '../measures.ts';
import { planOf } from '../plan-file.ts';
import { type Stage, type Tuned, tune } from '../tune.ts';
import type { Comparison } from './divergence.ts';
import { measuresOf } from './model-measures.ts';
import { type OpenedModel, openForTuning } from './open-model.ts';
import { type RunSettings, runTexts } from './runs.ts';
import { FileStore, hashFiles, hashText } from './store-node.ts';
import { tuningText } from './text.ts';

export interface TuneOptions {
  readonly budget: Budget;
  /** The budget as it was given, for the plan. */
  readonly budgetText: string;
  /** File of the measurements. */
  readonly cache: string;
  /** Whether to ignore what the cache has. */
  readonly fresh?: boolean | undefined;
  /** File to write the model to, stored as planned. */
  readonly quantized?: string | undefined;
  /** Text to measure and to calibrate with. Default: a built-in one, and rounding instead of calibration. */
  readonly text?: { readonly text: string; readonly name: string } | undefined;
  /** Most tokens of the text. */
  readonly tokens: number;
  /** Units whose loss is measured alone. */
  readonly samples: number;
  readonly threads?: number | undefined;
  readonly revectorize?: boolean | undefined;
  readonly backend?: 'wasm' | 'reference' | undefined;
  /** Measures times. Default: on this machine, with weights in memory. */
  readonly times?: Measures['times'] | undefined;
  /** Whether times are measured. Default true. */
  readonly timed?: boolean | undefined;
  readonly onProgress?: ((stage: Stage, done: number, total: number) => void) | undefined;
  readonly onWarning?: ((text: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface TunedModel {
  readonly tuned: Tuned;
  readonly plan: StoragePlan;
  readonly lossName: string;
  /** Where the tokens come from. */
  readonly text: string;
  /** Whether errors and the measured loss of the plan are those of calibrated weights. */
  readonly calibrated: boolean;
  /** Why the model cannot be written as GGUF; sizes are then those in memory. */
  readonly notWritable: string | undefined;
  /** Measurements found in the cache. */
  readonly known: number;
  readonly machine: {
    readonly threads: number;
    readonly vectorBits: number | undefined;
    readonly read: readonly number[];
  };
}

/** Bytes of the exact model's probabilities that are kept to compare with. */
const MOST_PROBABILITIES = 2 ** 29;

export async function tuneModel(source: ModelSource, options: TuneOptions): Promise<TunedModel> {
  const { folder, file, host } = source;
  const model = await openForTuning(folder, file);
  try {
    const { description, files } = model;
    const { modelType, kind, config } = description;
    if (options.budget.kind !== 'size') checkLossName(kind, options);
    const most = kind === 'encoder' ? options.tokens : Math.floor(MOST_PROBABILITIES / (4 * config.vocab));
    const { texts, source: from } = await tuningText(model, folder, options.text, Math.min(options.tokens, most));
    const textHash = hashText(JSON.stringify(texts));
    const { threads = host.cores, revectorize = true } = options;
    const machine = `${host.notes?.machine ?? 'machine not known'}, ${threads} threads${revectorize ? '' : ', 128-bit kernels'}`;
    const store = await FileStore.open(
      options.cache,
      {
        model: hashText(
          `${await hashFiles(folder.name, files.files)} ${textHash} ${options.text === undefined ? 'rounded' : hashText(options.text.text)} ${machine}`,
        ),
        machine,
      },
      options.fresh,
    );
    const known = store.size;
    const settings = {
      host,
      threads: options.threads,
      revectorize: options.revectorize,
      backend: options.backend,
      onWarning: options.onWarning,
      signal: options.signal,
    };
    const calibrates = options.text !== undefined && model.notWritable === undefined;
    const writer = new PlanWriter(source, texts, settings, options);
    const measures = measuresOf(model, {
      ...settings,
      texts,
      times: options.times ?? shapeTimes(options),
      ...(calibrates && {
        calibration: await calibrationIds(model, folder, options.text!),
        planLoss: (weights, learned) => writer.loss(weights, learned),
      }),
    });
    try {
      const tuned = await tune({ ...model, ...options, measures, store });
      if (options.quantized !== undefined) await writer.write(tuned.weights);
      const lossName = kind === 'encoder' ? 'cosine distance' : 'KL divergence';
      const plan = planOf(tuned, {
        model: { type: modelType, layers: config.layers, dim: config.dim, vocab: config.vocab },
        budget: options.budget,
        budgetText: options.budgetText,
        lossName,
        text: from,
        calibrated: calibrates,
        textHash,
        machine,
      });
      return {
        tuned,
        plan,
        lossName,
        text: from,
        calibrated: calibrates,
        notWritable: model.notWritable,
        known,
        machine: { threads, vectorBits: host.widens && revectorize ? 256 : 128, read: [] },
      };
    } finally {
      await store.save();
      await writer.close();
    }
  } finally {
    await model.close();
  }
}

/** @throws OptionError for a limit of the loss in the words of the other kind of model */
function checkLossName(kind: 'decoder' | 'encoder', { budgetText }: TuneOptions): void {
  if (kind === 'encoder' && /\bkl=/.test(budgetText))
    throw new OptionError('budget', 'distance=N for an encoder, which has no logits to compare', budgetText);
  if (kind === 'decoder' && /\bdistance=/.test(budgetText))
    throw new OptionError('budget', 'kl=N for a model that generates text', budgetText);
}

/** Most tokens of the text that errors after calibration are measured with. */
const CALIBRATION_TOKENS = 4096;
const CALIBRATION_LENGTH = 512;

async function calibrationIds(
  { files, description, name }: OpenedModel,
  folder: FileFolder,
  { text, name: option }: NonNullable<TuneOptions['text']>,
): Promise<number[][]> {
  const { vocab, contextLength } = description.config;
  const tokenizer = withinVocabulary((await tokenizerBeside(folder, files))!, vocab, name);
  const length = Math.min(CALIBRATION_LENGTH, contextLength);
  const texts = calibrationTexts(tokenizer, text, {
    option: `calibrate ${option}`,
    length,
    tokens: CALIBRATION_TOKENS,
  });
  return texts.map((ids) => [...ids]);
}

/** Writes the model as a plan stores it, calibrated with the text if there is one, and measures the file. */
class PlanWriter {
  readonly #source: ModelSource;
  readonly #texts: readonly (readonly number[])[];
  readonly #settings: RunSettings;
  readonly #options: TuneOptions;
  readonly #file: string;
  /** The weights of the file, as text. */
  #written: string | undefined;

  constructor(source: ModelSource, texts: readonly (readonly number[])[], settings: RunSettings, options: TuneOptions) {
    this.#source = source;
    this.#texts = texts;
    this.#settings = settings;
    this.#options = options;
    this.#file = resolve(options.quantized ?? `${options.cache}.gguf`);
  }

  async write(weights: Readonly<Record<string, Storage>>): Promise<void> {
    const key = JSON.stringify(weights);
    if (this.#written === key) return;
    const { text, signal, threads } = this.#options;
    await writeQuantized(this.#source, this.#file, {
      to: 'q8_0',
      policy: { version: 1, weights },
      ...(text && { calibrate: text }),
      ...(threads !== undefined && { threads }),
      ...(signal && { signal }),
    });
    this.#written = key;
  }

  /** The loss of the written model. */
  async loss(weights: Readonly<Record<string, Storage>>, learned: Comparison): Promise<number> {
    await this.write(weights);
    const model = await openForTuning(nodeFolder(dirname(this.#file)), basename(this.#file));
    try {
      const { add, loss } = learned.start();
      await runTexts(model, model.description.plan, this.#texts, this.#settings, add);
      return loss();
    } finally {
      await model.close();
    }
  }

  /** Removes a file that nobody asked for. */
  async close(): Promise<void> {
    if (this.#written !== undefined && this.#options.quantized === undefined) await rm(this.#file, { force: true });
  }
}

/** Rows of the chunks that a prompt is computed in. */
const CHUNK_ROWS = 128;
/** Turns of the measurement of a shape: where speed decides, and where it is only told. */
const [TURNS, FEW_TURNS] = [8, 3];

const shapeTimes =
  ({ budget, threads, revectorize, signal }: TuneOptions): Measures['times'] =>
  async ({ shape, types }) => {
    const found = await timeShapes({
      types,
      shapes: [shape],
      rows: [1, CHUNK_ROWS],
      from: ['memory'],
      threads,
      revectorize,
      signal,
      turns: budget.kind === 'speed' ? TURNS : FEW_TURNS,
    });
    const msOf = (type: Storage, rows: number): number => {
      const times = found.find((one) => one.type === type && one.rows === rows);
      return times === undefined ? Number.NaN : median(times.ms) / rows;
    };
    return types.map((type) => ({ rowMs: msOf(type, 1), chunkRowMs: msOf(type, CHUNK_ROWS) }));
  };
