/** Plans the loading of weights: slabs of the file, and the records that check and pack them. */
import { CHECK_LINE, checkBlocksKernel, checkName, checkRecord, checkValuesKernel } from '../../../kernels/finite.ts';
import {
  type PackedStorage,
  packKernel,
  packName,
  packVectorKernel,
  packVectorWords,
  packWords,
} from '../../../kernels/pack.ts';
import { packStoredKernel, packStoredName } from '../../../kernels/pack-stored.ts';
import { RECORD_BYTES } from '../../../kernels/record.ts';
import { flags } from '../../../kernels/walker.ts';
import { isBlockStorage, type Storage, storageLayout } from '../../../quant/storage.ts';
import type { Func, Module } from '../../../wasm/assembler.ts';
import type { BackendOptions, TensorData } from '../../backend.ts';
import { finiteLimit } from '../../finite.ts';
import { type Choice, q8Layout } from '../choosing/choice.ts';
import type { KernelSet } from '../lowering/kernel-set.ts';
import type { MemoryMap } from '../lowering/memory-map.ts';
import type { PlanPart } from '../lowering/parts.ts';
import { type SlabSource, slabSource, valueBytes } from './slab-sources.ts';
import { planSlabs, type Slab, type SlabPart, slabBytes } from './slabs.ts';

/** Largest slab in bytes. */
const STAGING_BYTES = 8 * 1024 * 1024;
/** Size of a slab that one thread reads and packs: it should stay in the cache of a core. */
const TASK_BYTES = 1024 * 1024;

interface PackStep {
  readonly kernel: number;
  words(staging: number): Int32Array;
}
export interface LoadStep {
  /** Index of the memory. */
  readonly memory: number;
  readonly slab: Slab;
  readonly source: SlabSource;
  /** Record that searches the slab for values that a weight must not hold. */
  readonly check: PackStep;
  /** Storage of the weights. */
  readonly storage: Storage;
  readonly packs: readonly PackStep[];
  /** Whether packing quantizes (else it only interleaves). */
  readonly quantizes: boolean;
}

/** One part of the plan and the layout of its memory. */
export interface LoadTarget {
  readonly index: number;
  readonly part: PlanPart;
  readonly map: MemoryMap;
}

/** Load steps of one part, in the order of the plan. Adds the kernels they need to `kernels`. */
export function planLoad(
  { plan, tensor }: BackendOptions,
  { index: memory, part: { weights }, map }: LoadTarget,
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
    (name) => (sources.get(name)!.inFile ? TASK_BYTES : STAGING_BYTES),
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
      // slab-sources.ts gives single values only for these storages.
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
      words: (source) => checkRecord.words({ source, count, limit }),
    };
  };
  // The weights of a slab belong to one layer and have the same storage.
  const storageOf = (slab: Slab): Storage => plan.weights[slab.parts[0]!.weight]!.storage;
  return slabs.map((slab) => ({
    memory,
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

/** Records for a slab at address `staging`: the check of its values, then its packs. */
export function tapeOf({ check, packs }: LoadStep, staging: number): Int32Array {
  const words = new Int32Array(((packs.length + 1) * RECORD_BYTES) / 4);
  words.set([check.kernel, 0, ...check.words(staging)]);
  for (const [index, { kernel, words: of }] of packs.entries()) {
    const barrier = index === packs.length - 1 ? flags.barrier : 0;
    words.set([kernel, barrier, ...of(staging)], ((index + 1) * RECORD_BYTES) / 4);
  }
  return words;
}
