/** Streams the weights: one slab at a time into staging memory, packed there by all threads. */
import type { ModelError } from '../../errors.ts';
import { CHECK_LINE, checkBlocksKernel, checkName, checkRecord, checkValuesKernel } from '../../kernels/finite.ts';
import {
  type PackedStorage,
  packKernel,
  packName,
  packVectorKernel,
  packVectorWords,
  packWords,
} from '../../kernels/pack.ts';
import { packStoredKernel, packStoredName } from '../../kernels/pack-stored.ts';
import { RECORD_BYTES } from '../../kernels/record.ts';
import { flags } from '../../kernels/walker.ts';
import { dequantize } from '../../quant/codec.ts';
import { isBlockStorage, type Storage, storageLayout } from '../../quant/storage.ts';
import type { Func, Module } from '../../wasm/assembler.ts';
import type { BackendOptions, LoadTimes, TensorData } from '../backend.ts';
import { finiteLimit, notFinite } from '../finite.ts';
import { type Choice, q8Layout } from './choice.ts';
import type { KernelSet } from './kernel-set.ts';
import type { Memory, MemoryMap } from './memory-map.ts';
import type { PlanPart } from './parts.ts';
import type { Pool } from './pool.ts';
import { type SlabSource, slabSource, valueBytes } from './slab-sources.ts';
import { planSlabs, type Slab, type SlabPart, slabBytes } from './slabs.ts';

const STAGING_BYTES = 8 * 1024 * 1024;
/** A slab is read in as many parts at once, so that the operating system copies with several threads. */
const READS = 2;

interface PackStep {
  readonly kernel: number;
  words(staging: number): Int32Array;
}
interface LoadStep {
  readonly slab: Slab;
  readonly source: SlabSource;
  /** Looks at all values of the slab, for what no weight may hold. */
  readonly check: { readonly kernel: number; words(staging: number, found: number): Int32Array };
  /** What values are to become. */
  readonly storage: Storage;
  readonly packs: readonly PackStep[];
  /** Whether packing quantizes (else it only interleaves). */
  readonly quantizes: boolean;
}

/** One part's memory, and where things go in it. */
export interface LoadTarget {
  readonly index: number;
  readonly part: PlanPart;
  readonly map: MemoryMap;
}

/** All of a part that is to be read and packed, in the order of the plan. Adds the kernels it needs to `kernels`. */
export function planLoad(
  { plan, tensor }: BackendOptions,
  { part: { weights }, map }: LoadTarget,
  choice: Choice,
  kernels: KernelSet,
): LoadStep[] {
  const tensors = new Map<string, TensorData>();
  const find = (name: string): TensorData => {
    const known = tensors.get(name) ?? tensor(name);
    tensors.set(name, known);
    return known;
  };
  const sources = new Map<string, SlabSource>();
  const wanted = [...plan.weights.entries()]
    .filter(([id, { shares }]) => weights.has(id) && shares === undefined)
    .map(([index, weight]) => {
      const source = slabSource(weight, index, find(weight.source.tensor));
      sources.set(source.name, source);
      return { index, weight: source.weight };
    });
  const slabs = planSlabs(
    wanted,
    (name) => sources.get(name)!.shape,
    (name) => valueBytes(sources.get(name)!.type),
    STAGING_BYTES,
  );
  const pack = (slab: Slab, part: SlabPart): PackStep => {
    const weight = plan.weights[part.weight]!;
    const source = sources.get(slab.tensor)!.type;
    const address = map.weights[part.weight]!;
    if (isBlockStorage(source)) {
      const variant = { storage: source, q8: q8Layout(choice) };
      const name = packStoredName(variant);
      const kernel = kernels.index(name, name, (m) => packStoredKernel(m, variant));
      const matrix = { address, k: weight.shape[1]! };
      return { kernel, words: (staging) => packWords(source, matrix, { ...part, source: staging + part.offset }) };
    }
    if (weight.shape.length === 1) {
      const kernel = kernels.index('pack vectors', source, (m) => packVectorKernel(m, source));
      const { plus } = weight.source;
      return {
        kernel,
        words: (staging) => packVectorWords({ source: staging, count: part.columns, destination: address, plus }),
      };
    }
    const variant = {
      source,
      order: weight.source.transposed ? 'columns' : 'rows',
      // Only these are made of single values, see slab-sources.ts.
      storage: weight.storage as PackedStorage,
      q8: q8Layout(choice),
    } as const;
    const name = packName(variant);
    const kernel = kernels.index(name, name, (m) => packKernel(m, variant));
    const matrix = { address, k: weight.shape[1]! };
    return {
      kernel,
      words: (staging) => packWords(weight.storage, matrix, { ...part, source: staging + part.offset }),
    };
  };
  const limits = new Map<string, number>();
  const check = (slab: Slab, storage: Storage): LoadStep['check'] => {
    const { type } = sources.get(slab.tensor)!;
    const name = checkName(type);
    const blocks = isBlockStorage(type);
    const emit = (m: Module): Func => (blocks ? checkBlocksKernel(m, type) : checkValuesKernel(m, type));
    const key = `${type} ${storage}`;
    const limit = blocks ? 0 : (limits.get(key) ?? finiteLimit(type, storage));
    limits.set(key, limit);
    const count = blocks ? slabBytes(slab) / storageLayout[type].bytes : Math.ceil(slabBytes(slab) / CHECK_LINE);
    return {
      kernel: kernels.index('check', name, emit),
      words: (source, found) => checkRecord.words({ source, count, limit, found }),
    };
  };
  // A slab's weights are parts of one layer: they are stored alike.
  const storageOf = (slab: Slab): Storage => plan.weights[slab.parts[0]!.weight]!.storage;
  return slabs.map((slab) => ({
    slab,
    source: sources.get(slab.tensor)!,
    check: check(slab, storageOf(slab)),
    storage: storageOf(slab),
    packs: slab.parts.map((part) => pack(slab, part)),
    quantizes:
      !isBlockStorage(sources.get(slab.tensor)!.type) &&
      slab.parts.some(({ weight }) => isBlockStorage(plan.weights[weight]!.storage)),
  }));
}

export const loadBytes = (steps: readonly LoadStep[]): number =>
  steps.reduce((sum, { slab }) => sum + slabBytes(slab), 0);

/** Reads and packs a part. The place of its cache holds the slabs meanwhile. @throws ModelError NotFinite */
export async function runLoad(
  steps: readonly LoadStep[],
  { signal }: BackendOptions,
  { index: memoryIndex, map }: LoadTarget,
  memory: Memory,
  pool: Pool,
  onProgress: (weight: number, bytesRead: number) => void,
): Promise<LoadTimes> {
  const largest = steps.reduce((most, { slab }) => Math.max(most, slabBytes(slab)), 0);
  // Kernels read whole vectors: the last ones may reach beyond a slab's end.
  memory.reserve('the staging area', map.cache + largest + CHECK_LINE);
  // The last word of the first record.
  const found = map.tape + RECORD_BYTES - 4;
  let [readMs, quantizeMs, packMs, bytesRead] = [0, 0, 0, 0];
  for (const { slab, source, check, storage, packs, quantizes } of steps) {
    signal?.throwIfAborted();
    const start = performance.now();
    await readSlab(source, slab, map.cache, memory);
    const read = performance.now();
    memory.bytes(map.cache + slabBytes(slab), CHECK_LINE).fill(0);
    const head = memory.i32(map.tape, RECORD_BYTES / 4);
    head.fill(0);
    head.set([check.kernel, 0, ...check.words(map.cache, found)]);
    for (const [index, { kernel, words }] of packs.entries()) {
      const last = index === packs.length - 1;
      memory
        .i32(map.tape + (index + 1) * RECORD_BYTES, RECORD_BYTES / 4)
        .set([kernel, last ? flags.barrier : 0, ...words(map.cache)]);
    }
    await pool.run(memoryIndex, map.tape, packs.length + 1);
    if (memory.i32(found, 1)[0]) throw slabError(source, memory.bytes(map.cache, slabBytes(slab)), storage);
    const packed = performance.now();
    if (source.quantizes) quantizeMs += read - start;
    else readMs += read - start;
    if (quantizes) quantizeMs += packed - read;
    else packMs += packed - read;
    bytesRead += slabBytes(slab);
    onProgress(slab.parts[0]!.weight, bytesRead);
  }
  return { readMs, quantizeMs, packMs, bytesRead };
}

/** Says what a slab holds that it must not. */
function slabError({ place, type, quantizes }: SlabSource, bytes: Uint8Array, storage: Storage): ModelError {
  // Blocks that were made here are made of finite values.
  return notFinite(place, quantizes ? new Float32Array() : dequantize(type, bytes.slice()), storage);
}

async function readSlab(source: SlabSource, slab: Slab, address: number, memory: Memory): Promise<void> {
  const part = Math.ceil(slabBytes(slab) / READS / 4096) * 4096;
  const reads: Promise<void>[] = [];
  let to = address;
  for (const { start, end } of slab.ranges) {
    for (let at = start; at < end; at += part) {
      const count = Math.min(part, end - at);
      reads.push(source.readInto(at, memory.bytes(to, count)));
      to += count;
    }
  }
  await Promise.all(reads);
}
