/** Opens a model for tuning: its units, the bytes of its file, and the values of its matrices. */
import { convertedBytes } from '../../convert/convert.ts';
import { type ModelFile, planQuantization } from '../../convert/quantize.ts';
import { type OpenModel, openModel } from '../../engine/open.ts';
import { ModelError } from '../../errors.ts';
import type { FileFolder } from '../../formats/bytes.ts';
import { encodeGgufHeader } from '../../formats/gguf-encode.ts';
import { DEFAULT_ALIGNMENT } from '../../formats/gguf-header.ts';
import type { GgmlType } from '../../formats/gguf-types.ts';
import { buildModel, type ModelDescription } from '../../models/index.ts';
import { parsePolicy } from '../../models/policy.ts';
import type { StoragePlan } from '../../models/storage-plan.ts';
import type { Plan } from '../../plan/step.ts';
import { weightTypes } from '../../quant/ggml.ts';
import { type Storage, storageLayout } from '../../quant/storage.ts';
import { padded, type Unit, unitsOf } from '../unit.ts';

export interface OpenedModel {
  readonly name: string;
  readonly files: OpenModel;
  /** Every weight as the file has it. */
  readonly description: ModelDescription;
  readonly units: readonly Unit[];
  /** Bytes of the new file besides the units. */
  readonly fixedBytes: number;
  readonly alignment: number;
  /** Why the model cannot be written as GGUF: bytes are then those of the weights in memory. */
  readonly notWritable: string | undefined;
  close(): Promise<void>;
}

/** Storages that `quantize` writes and a plan can have. */
export const tunableTypes = (Object.keys(storageLayout) as Storage[]).filter((type) => weightTypes[type].quantize);

/** @throws FormatError, ModelError */
export async function openForTuning(folder: FileFolder, file?: string): Promise<OpenedModel> {
  const files = await openModel(folder, file);
  try {
    const { origin, headDiffers } = files;
    const description = buildModel(files.config, files.tensors, { policy: parsePolicy('none'), origin, headDiffers });
    const { groups, ...layout } = await fileLayout(folder, file, description.plan);
    const { plan } = description;
    return {
      name: files.metadata || file ? `${folder.name}/${file ?? files.files[0]}` : folder.name,
      files,
      description,
      units: unitsOf(plan.weights, groups, usesOf(plan), tunableTypes),
      ...layout,
      close: () => files.close(),
    };
  } catch (error) {
    await files.close();
    throw error;
  }
}

interface FileLayout extends Pick<OpenedModel, 'fixedBytes' | 'alignment' | 'notWritable'> {
  /** Names of the weights in each tensor whose type can be chosen. */
  readonly groups: readonly (readonly string[])[];
}

/** A type with blocks of one value, so that every tensor can have it. */
const ANY = 'bf16';
const noWeights: StoragePlan = { version: 1, weights: {} };

async function fileLayout(folder: FileFolder, file: string | undefined, plan: Plan): Promise<FileLayout> {
  let written: ModelFile;
  try {
    written = await planQuantization(folder, file, { to: ANY, policy: noWeights, format: 'gguf' });
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    return memoryLayout(plan, error.message.split('\n')[0]!);
  }
  try {
    const alignment = Number(written.metadata.get('general.alignment')?.value ?? DEFAULT_ALIGNMENT);
    const tensors = written.recipes.map(({ name, shape, to, sources }) => ({
      name,
      shape,
      dtype: (to?.toUpperCase() ?? sources[0]!.dtype) as GgmlType,
    }));
    // A file of which some tensors have blocks says so.
    const version = { type: 'uint32', value: 2 } as const;
    const { fileBytes } = encodeGgufHeader(
      tensors,
      new Map([...written.metadata, ['general.quantization_version', version]]),
    );
    const chosen = written.recipes.filter(({ name, to }) => to === ANY && (written.weights.get(name) ?? []).length > 0);
    const own = chosen.reduce((sum, recipe) => sum + padded(convertedBytes(recipe), alignment), 0);
    const groups = chosen.map(({ name }) => written.weights.get(name)!);
    return { groups: inPlanOrder(groups, plan), fixedBytes: fileBytes - own, alignment, notWritable: undefined };
  } finally {
    await written.close();
  }
}

/** By the position of their first weight in the plan, whatever the order of the file's tensors. */
function inPlanOrder(groups: readonly (readonly string[])[], { weights }: Plan): (readonly string[])[] {
  const place = new Map(weights.map(({ name }, at) => [name, at]));
  const sorted = groups.map((names) => names.toSorted((a, b) => place.get(a)! - place.get(b)!));
  return sorted.sort(([a], [b]) => place.get(a!)! - place.get(b!)!);
}

/** One unit per matrix that policies may store otherwise. */
function memoryLayout({ weights }: Plan, notWritable: string): FileLayout {
  const isOwn = (role: string): boolean => role !== 'router' && role !== 'position';
  const groups = weights.flatMap(({ name, role, shape, shares }, id) => {
    if (shape.length !== 2 || shares !== undefined || !isOwn(role)) return [];
    return [[name, ...weights.filter((other) => other.shares === id).map((other) => other.name)]];
  });
  const named = new Set(groups.flat());
  const fixedBytes = weights.filter(({ name }) => !named.has(name)).reduce((sum, { bytes }) => sum + bytes, 0);
  return { groups, fixedBytes, alignment: 1, notWritable };
}

/** Products with each matrix per row, by name. */
function usesOf({ steps, weights }: Plan): Map<string, number> {
  const uses = new Map<string, number>();
  const add = (id: number, count: number): void => {
    const { name } = weights[id]!;
    uses.set(name, (uses.get(name) ?? 0) + count);
  };
  for (const step of steps) {
    if (step.op === 'matmul') add(step.weight, 1);
    if (step.op === 'experts')
      for (const id of [...step.gate, ...step.up, ...step.down]) add(id, step.top / step.gate.length);
  }
  return uses;
}
