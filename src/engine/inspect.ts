/** Describes a model from its headers, and checks all of it. */
import { cacheBytes, weightBytes } from '../backend/wasm/footprint.ts';
import { LanewiseError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { openCheckpoint } from '../formats/checkpoint.ts';
import { buildModel, type ModelDescription } from '../models/index.ts';
import { defaultPolicy, parsePolicy } from '../models/policy.ts';
import type { ChatFormat } from '../prompts/chat.ts';
import { dequantizeBF16 } from '../quant/bf16.ts';
import { dequantizeF16 } from '../quant/f16.ts';
import { weightType } from '../quant/ggml.ts';
import type { KvStorage } from '../quant/kv-cache.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { readChatFormat } from './chat-files.ts';
import { type OpenModel, openModel } from './open.ts';
import { readSamplingDefaults, type SamplingDefaults } from './sampling-defaults.ts';
import { fileBytes } from './sizes.ts';
import { tokenizerBeside } from './tokenizer.ts';

export interface TensorSummary {
  /** Hugging Face's name. */
  readonly name: string;
  /** Name in the file. */
  readonly origin: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Bytes in the file. */
  readonly bytes: number;
}

/** Memory of a model with a storage policy. */
export interface PolicySize {
  readonly policy: string;
  /** Bytes of weights in memory, padding included. */
  readonly weightBytes: number;
}

export interface TensorStatistics {
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly deviation: number;
  /** Number of NaN and infinities, which the other statistics exclude. */
  readonly notFinite: number;
}

export interface Check {
  readonly status: 'PASS' | 'WARN' | 'FAIL';
  readonly what: string;
}

/** Policies whose sizes are shown by default. */
const policies = ['none', defaultPolicy, 'q8_0', 'q6_k', 'q4_k', 'iq4_nl', 'q4_0'];
const CHUNK_BYTES = 4 * 2 ** 20;

/** A model opened for inspection, which must be closed. */
export class Inspection implements AsyncDisposable {
  readonly name: string;
  readonly tensors: readonly TensorSummary[];
  /** Metadata of a GGUF file, or config.json and `__metadata__`. */
  readonly metadata: ReadonlyMap<string, unknown>;
  /** The description, or the error that shows why the model is not supported. */
  readonly description: ModelDescription | LanewiseError;
  readonly tokenizer: Tokenizer | LanewiseError | undefined;
  readonly chat: ChatFormat | LanewiseError;
  /** Defaults of the sampling options. */
  readonly sampling: SamplingDefaults;
  readonly #files: OpenModel;
  readonly #warnings: readonly string[];

  private constructor(
    name: string,
    files: OpenModel,
    parts: Pick<Inspection, 'metadata' | 'tokenizer' | 'chat' | 'sampling'>,
    warnings: readonly string[],
  ) {
    this.name = name;
    this.#files = files;
    this.#warnings = warnings;
    this.metadata = parts.metadata;
    this.tokenizer = parts.tokenizer;
    this.chat = parts.chat;
    this.sampling = parts.sampling;
    this.tensors = [...files.tensors].map(([tensor, { dtype, shape }]) => ({
      name: tensor,
      origin: files.origin?.nameOf(tensor) ?? tensor,
      dtype,
      shape,
      bytes: fileBytes({ dtype, shape }),
    }));
    this.description = attempt(() => this.describe(files.defaultPolicy));
  }

  /** Reads headers and text files only. @throws FormatError, ModelError if there is no valid model file */
  static async open(folder: FileFolder, file?: string): Promise<Inspection> {
    const files = await openModel(folder, file);
    try {
      const { metadata, warnings } = await metadataOf(folder, file, files);
      const tokenizer = await attemptAsync(() => tokenizerBeside(folder, files));
      const known = tokenizer instanceof LanewiseError ? undefined : tokenizer;
      const { format: chat } = await readChatFormat(folder, files, known);
      const more: string[] = [];
      const sampling = await readSamplingDefaults(folder, files.metadata, (text) => more.push(text));
      const name = files.metadata ? `${folder.name}/${files.files[0]}` : folder.name;
      return new Inspection(name, files, { metadata, tokenizer, chat, sampling }, [...warnings, ...more]);
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  get format(): 'GGUF' | 'SafeTensors' {
    return this.#files.metadata ? 'GGUF' : 'SafeTensors';
  }

  get files(): readonly string[] {
    return this.#files.files;
  }

  /** @throws ModelError, OptionError */
  describe(policy: string, kvCache?: KvStorage): ModelDescription {
    const { config, tensors, origin, headDiffers } = this.#files;
    return buildModel(config, tensors, { policy: parsePolicy(policy), kvCache, origin, headDiffers });
  }

  /** Memory of the weights with the usual policies, and with the given ones. */
  sizes(more: readonly string[] = []): PolicySize[] {
    return [...new Set([...policies, ...more])].map((policy) => {
      return { policy, weightBytes: weightBytes(this.describe(policy).plan) };
    });
  }

  /** Bytes of cached keys and values for a sequence of this many positions. */
  cacheBytes(positions: number, kvCache: KvStorage = 'f32'): number {
    return cacheBytes(this.describe(defaultPolicy, kvCache).plan, positions);
  }

  /** Reads the values of a tensor; undefined if it has an unsupported type. */
  async statistics(name: string): Promise<TensorStatistics | undefined> {
    const shape = this.#files.tensors.get(name);
    if (!shape || !weightType(shape.dtype)) return undefined;
    const { dtype, byteLength, readInto } = this.#files.tensor(name);
    let [count, notFinite, sum, squares, min, max] = [0, 0, 0, 0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (let at = 0; at < byteLength; at += CHUNK_BYTES) {
      const bytes = new Uint8Array(Math.min(CHUNK_BYTES, byteLength - at));
      await readInto(at, bytes);
      const values =
        dtype === 'f32'
          ? new Float32Array(bytes.buffer)
          : dtype === 'f16'
            ? dequantizeF16(bytes)
            : dequantizeBF16(bytes);
      for (const value of values) {
        if (!Number.isFinite(value)) {
          notFinite++;
          continue;
        }
        count++;
        sum += value;
        squares += value * value;
        if (value < min) min = value;
        if (value > max) max = value;
      }
    }
    const mean = count ? sum / count : 0;
    return {
      count,
      min,
      max,
      mean,
      deviation: Math.sqrt(Math.max(0, count ? squares / count - mean * mean : 0)),
      notFinite,
    };
  }

  /** Checks the model. @param options.values whether to read the values of tensors too */
  async *verify({
    values,
    onProgress,
  }: {
    values: boolean;
    onProgress?: (done: number, total: number) => void;
  }): AsyncGenerator<Check, void, undefined> {
    const { files, description, tokenizer, chat } = this;
    yield {
      status: 'PASS',
      what: `headers: ${this.tensors.length} tensors in ${files.length} ${files.length === 1 ? 'file' : 'files'}, without duplicates and within their files`,
    };
    for (const warning of this.#warnings) yield { status: 'WARN', what: `index: ${warning}` };
    if (description instanceof LanewiseError) yield { status: 'FAIL', what: `model: ${description.message}` };
    else
      yield { status: 'PASS', what: `model: every weight of ${description.modelType} is present with the right shape` };
    yield* this.#checkTokenizer(tokenizer, description);
    if (!(chat instanceof LanewiseError)) yield { status: 'PASS', what: 'chat template: valid' };
    else
      yield {
        status: chat.code === 'NoChatTemplate' ? 'WARN' : 'FAIL',
        what: `chat template: ${chat.code === 'NoChatTemplate' ? 'none' : chat.message}`,
      };
    if (values) yield await this.#checkValues(onProgress);
    else yield { status: 'WARN', what: 'values: not read, as they are not on this machine' };
  }

  *#checkTokenizer(tokenizer: Inspection['tokenizer'], description: Inspection['description']): Generator<Check> {
    if (tokenizer === undefined) yield { status: 'WARN', what: 'tokenizer: none; the model takes token ids' };
    else if (tokenizer instanceof LanewiseError) yield { status: 'FAIL', what: `tokenizer: ${tokenizer.message}` };
    else if (!(description instanceof LanewiseError)) {
      const { vocab } = description.config;
      const fits = tokenizer.vocabSize <= vocab;
      yield {
        status: fits ? 'PASS' : 'FAIL',
        what: `tokenizer: ids below ${tokenizer.vocabSize}, the model has ${vocab}`,
      };
      const strange = description.eosTokenIds.filter((id) => tokenizer.token(id) === undefined);
      if (strange.length) yield { status: 'WARN', what: `tokenizer: has no token for the end ${strange.join(', ')}` };
    }
  }

  async #checkValues(onProgress?: (done: number, total: number) => void): Promise<Check> {
    const total = this.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
    const bad: string[] = [];
    let [done, count] = [0, 0];
    for (const { name, bytes } of this.tensors) {
      const statistics = await this.statistics(name);
      count += statistics?.count ?? 0;
      if (statistics?.notFinite) bad.push(`${name} has ${statistics.notFinite}`);
      onProgress?.((done += bytes), total);
    }
    if (bad.length === 0) return { status: 'PASS', what: `values: all ${count} are finite` };
    return {
      status: 'FAIL',
      what: `values: not finite: ${bad.slice(0, 8).join(', ')}${bad.length > 8 ? ` and ${bad.length - 8} more tensors` : ''}`,
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#files.close();
  }
}

async function metadataOf(
  folder: FileFolder,
  file: string | undefined,
  files: OpenModel,
): Promise<{ metadata: Map<string, unknown>; warnings: readonly string[] }> {
  if (files.metadata)
    return { metadata: new Map([...files.metadata].map(([key, { value }]) => [key, value])), warnings: [] };
  const { metadata, warnings, close } = await openCheckpoint(folder, file);
  await close();
  return {
    metadata: new Map([
      ...Object.entries(files.config as object),
      ...[...metadata].map(([key, text]) => [`__metadata__.${key}`, text] as const),
    ]),
    warnings,
  };
}

function attempt<T>(work: () => T): T | LanewiseError {
  try {
    return work();
  } catch (error) {
    if (error instanceof LanewiseError) return error;
    throw error;
  }
}

async function attemptAsync<T>(work: () => Promise<T>): Promise<T | LanewiseError> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof LanewiseError) return error;
    throw error;
  }
}
