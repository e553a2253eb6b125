/**
 * Storage policies: which weights are quantized, and why.
 *
 *   none                          every weight as the file stores it
 *   q8_0, q4_0                    all linear layers
 *   q4_k, q5_k, q6_k              the same, with scales searched for: seconds to minutes of loading, in one thread
 *   f16, bf16, f32                the same, as floats
 *   q8_0:min-dim=1024             a linear layer is left as it is where max(in, out) < 1024
 *   q8_0,ffn=q4_0,output=none     overrides by role: attention, ffn, output, embedding
 */
import { OptionError } from '../errors.ts';
import type { WeightRole } from '../plan/step.ts';
import { isBlockStorage, type Storage, storageBytes, storageLayout } from '../quant/storage.ts';

/** What `generate` uses unless told otherwise. */
export const defaultPolicy = 'q8_0:min-dim=1024';

type Target = 'none' | Storage;
const targets: readonly Target[] = ['none', 'q8_0', 'q4_0', 'q4_k', 'q5_k', 'q6_k', 'f16', 'bf16', 'f32'];
const overridable = ['attention', 'ffn', 'output', 'embedding'] as const;

export interface StoragePolicy {
  readonly text: string;
  readonly base: Target;
  /** Layers with max(in, out) below stay as they are; 0: none does. */
  readonly minDim: number;
  readonly overrides: ReadonlyMap<WeightRole, Target>;
}

/** A storage type as people spell it: `Q8_0`, `FP16`. */
export const typeName = (text: string): string =>
  text
    .trim()
    .toLowerCase()
    .replace(/^fp(16|32)$/, 'f$1');

/** What to say of the mixtures of llama.cpp, such as q4_k_m; '' for other names. */
export function mixtureHint(text: string): string {
  const [, type] = /\b(q[2-6]_k)_(?:s|m|l|xl)\b/i.exec(text) ?? [];
  const near = type?.toLowerCase();
  if (near === undefined) return '';
  const have = targets.find((base) => base === near) ?? 'q4_k';
  return ` (${near}_* are mixtures of llama.cpp: say ${have})`;
}

/** @throws OptionError */
export function parsePolicy(text: string): StoragePolicy {
  const expected =
    'none, q8_0, q4_0, q4_k, q5_k, q6_k, f16, bf16 or f32, each but none also as q8_0:min-dim=N, then ,ROLE=STORAGE for attention, ffn, ' +
    'output, embedding';
  const fail = (): never => {
    throw new OptionError('quantize', expected + mixtureHint(text), text);
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

/** Bytes of a table that fits into one 32-bit memory beside what else is there. */
const MOST_TABLE = 3.5 * 2 ** 30;

export interface Decision {
  readonly storage: Storage;
  readonly reason: string;
}

/** How to store a matrix [out, in] that the file has as `stored`. Fused tensors are judged as the layers they hold. */
export function decide(
  policy: StoragePolicy,
  role: WeightRole,
  [out, inputs]: readonly [number, number],
  stored: Storage,
): Decision {
  const override = policy.overrides.get(role);
  if (role === 'router') return { storage: stored, reason: 'chooses experts: as exact as the file has it' };
  if (override === undefined && (role === 'embedding' || role === 'position')) {
    const isLarge =
      policy.base !== 'none' &&
      isBlockStorage(policy.base) &&
      inputs % storageLayout.q8_0.block === 0 &&
      storageBytes(stored, inputs) * out > MOST_TABLE;
    return isLarge
      ? { storage: 'q8_0', reason: 'a table larger than one memory as it is' }
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
