/** Identifies the plan and backend that cached keys and values belong to: 32 hexadecimal digits. */
import type { Backend } from '../backend/backend.ts';
import type { Plan } from '../plan/step.ts';

/** Increase if the same plan gives other bits, or if the layout of pages changes. */
const BITS = 1;

export function fingerprint({ name }: Pick<Backend, 'name'>, plan: Plan): string {
  const text = JSON.stringify([BITS, name, plan], (key, value: unknown) => {
    // The reason for a weight's storage does not affect its bits.
    if (key === 'reason') return undefined;
    return ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<number>) : value;
  });
  // FNV-1a with four initial values. Detects mistakes, not attacks.
  const hashes = [0x811c9dc5, 0x01000193, 0x9e3779b1, 0x85ebca6b];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    for (let n = 0; n < 4; n++) hashes[n] = Math.imul(hashes[n]! ^ unit, 0x01000193);
  }
  return hashes.map((hash) => (hash >>> 0).toString(16).padStart(8, '0')).join('');
}
