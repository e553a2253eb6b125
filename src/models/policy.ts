/**
 * Storage policies: which weights are quantized, and why.
 *
 *   none                          no weight is converted
 *   q8_0, q4_0                    all linear layers
 *   iq4_nl, q4_k, q5_k, q6_k      all linear layers; scales are searched for, in one thread: seconds to minutes of loading
 *   f16, bf16, f32                all linear layers, as floats
 *   q8_0:min-dim=1024             linear layers with max(in, out) >= 1024
 *   q8_0,ffn=q4_0,output=none     overrides by role: attention, ffn, output, embedding
 */
import { OptionError } from '../errors.ts';
import type { WeightRole } from '../plan/step.ts';
import { isBlockStorage, type Storage, storageBytes, storageLayout } from '../quant/storage.ts';
import { checkStoragePlan, type Quantize, type StoragePlan } from './storage-plan.ts';

/** Default of decoders in SafeTensors. */
export const defaultPolicy = 'q8_0:min-dim=1024';

type Target = 'none' | Storage;
const targets: readonly Target[] = ['none', 'q8_0', 'q4_0', 'iq4_nl', 'q4_k', 'q5_k', 'q6_k', 'f16', 'bf16', 'f32'];
const overridable = ['attention', 'ffn', 'output', 'embedding'] as const;

export interface StoragePolicy {
  readonly text: string;
  readonly base: Target;
  /** Layers with max(in, out) below this are not converted; 0: all are. */
  readonly minDim: number;
  readonly overrides: ReadonlyMap<WeightRole, Target>;
}

/** What decides the storage of each weight. */
export type StorageChoice = StoragePolicy | StoragePlan;

export const isPlan = (choice: StorageChoice): choice is StoragePlan => 'weights' in choice;

/** Reads the option of a load. @throws OptionError */
export const parseQuantize = (quantize: Quantize, option = 'quantize'): StorageChoice =>
  typeof quantize === 'string' ? parsePolicy(quantize, option) : checkStoragePlan(quantize, option);

/** Normalizes the spelling of a storage type: `Q8_0`, `FP16`. */
export const typeName = (text: string): string =>
  text
    .trim()
    .toLowerCase()
    .replace(/^fp(16|32)$/, 'f$1');

/** A hint for the names of llama.cpp's mixtures, such as q4_k_m; '' for other names. */
export function mixtureHint(text: string): string {
  const [, type] = /\b(q[2-6]_k)_(?:s|m|l|xl)\b/i.exec(text) ?? [];
  const near = type?.toLowerCase();
  if (near === undefined) return '';
  const have = targets.find((base) => base === near) ?? 'q4_k';
  return ` (${near}_* are mixtures of llama.cpp: say ${have})`;
}

/** @param option that the text was given as @throws OptionError */
export function parsePolicy(text: string, option = 'quantize'): StoragePolicy {
  const expected =
    'none, q8_0, q4_0, iq4_nl, q4_k, q5_k, q6_k, f16, bf16 or f32, each but none also as q8_0:min-dim=N, then ,ROLE=STORAGE for attention, ffn, ' +
    'output, embedding';
  const fail = (): never => {
    throw new OptionError(option, expected + mixtureHint(text), text);
  };
  const [head, ...rest] = text.toLowerCase().split(',');
  const match = /^([a-z\d_]+)(?::min-dim=(\d{1,9}))?$/.exec(head!.trim()) ?? fail();
  const base = targets.find((known) => known === typeName(match[1]!)) ?? fail();
  if (base === 'none' && match[2] !== undefined) fail();
  const overrides = new Map<WeightRole, Target>();
  for (const part of rest) {
    const [role, target, ...more] = part.split('=');
    const knownRole = overridable.find((known) => known === role!.trim());
    const knownTarget = targets.find((known) => known === typeName(target ?? ''));
    if (knownRole === undefined || knownTarget === undefined || more.length || overrides.has(knownRole)) fail();
    overrides.set(knownRole!, knownTarget!);
  }
  return { text, base, minDim: Number(match[2] ?? 0), overrides };
}

/** Largest table, in bytes, that fits into a 32-bit memory together with the rest. */
const MOST_TABLE = 3.5 * 2 ** 30;

export interface Decision {
  readonly storage: Storage;
  readonly reason: string;
}

/** A matrix whose storage is decided. */
export interface StoredMatrix {
  /** Name in the plan: `layers.3.attention.q`. */
  readonly name: string;
  readonly role: WeightRole;
  /** [out, in] */
  readonly shape: readonly [number, number];
  /** Storage in the file. */
  readonly stored: Storage;
}

/** The storage of a matrix. Fused tensors are decided layer by layer. @throws OptionError for a plan that does not fit */
export const decide = (choice: StorageChoice, matrix: StoredMatrix): Decision =>
  isPlan(choice) ? decideByPlan(choice, matrix) : decideByPolicy(choice, matrix);

/** Whether a choice names a storage for a matrix, instead of having a rule for all. */
export const names = (choice: StorageChoice, name: string, role: WeightRole): boolean =>
  isPlan(choice) ? Object.hasOwn(choice.weights, name) : choice.overrides.has(role);

function decideByPlan(plan: StoragePlan, { name, shape: [, inputs], stored }: StoredMatrix): Decision {
  if (!Object.hasOwn(plan.weights, name)) return { storage: stored, reason: 'not in the plan' };
  const storage = plan.weights[name]!;
  const { block } = storageLayout[storage];
  if (inputs % block !== 0) {
    const what = `for ${name}, whose in is ${inputs}: a storage whose blocks divide it (${storage} has blocks of ${block})`;
    throw new OptionError('quantize', what, storage);
  }
  return { storage, reason: plan.explain?.[name]?.reason ?? 'plan' };
}

function decideByPolicy(policy: StoragePolicy, { role, shape: [out, inputs], stored }: StoredMatrix): Decision {
  const override = policy.overrides.get(role);
  if (role === 'router') return { storage: stored, reason: 'chooses experts: as exact as the file' };
  if (override === undefined && (role === 'embedding' || role === 'position')) {
    const isLarge =
      policy.base !== 'none' &&
      isBlockStorage(policy.base) &&
      inputs % storageLayout.q8_0.block === 0 &&
      storageBytes(stored, inputs) * out > MOST_TABLE;
    return isLarge
      ? { storage: 'q8_0', reason: 'a table that is too large for one memory' }
      : { storage: stored, reason: 'a table, not a linear layer' };
  }
  const target = override ?? policy.base;
  if (target === 'none') return { storage: stored, reason: override ? `${role}=none` : 'policy none' };
  const { block } = storageLayout[target];
  if (inputs % block !== 0) return { storage: stored, reason: `in ${inputs} is not a multiple of ${block}` };
  if (override) return { storage: target, reason: `${role}=${target}` };
  const largest = Math.max(out, inputs);
  if (largest < policy.minDim) return { storage: stored, reason: `max dim ${largest} < ${policy.minDim}` };
  return { storage: target, reason: policy.minDim ? `max dim ${largest} >= ${policy.minDim}` : `policy ${target}` };
}
