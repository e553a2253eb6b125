/** How often threads wait for each other in a decode step: counted in the tape that they walk. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { type ShapeName, shapeConfig, shapeTensors } from '../../bench/shapes.ts';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { KernelSet } from '../../src/backend/wasm/lowering/kernel-set.ts';
import { lower } from '../../src/backend/wasm/lowering/lower.ts';
import { mapMemory } from '../../src/backend/wasm/lowering/memory-map.ts';
import { splitPlan } from '../../src/backend/wasm/lowering/parts.ts';
import { RECORD_BYTES } from '../../src/kernels/record.ts';
import { flags } from '../../src/kernels/walker.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';

/** Barriers of a forward of one row. */
function barriers(shape: ShapeName, policy: string): number {
  const { plan } = buildModel(shapeConfig(shape), shapeTensors(shape), { policy: parsePolicy(policy) });
  const { parts } = splitPlan(plan, { capacity: 2 ** 32, weightBytes: () => 0, cacheBytes: () => 0 });
  const quantizedBytes = new Map(['int8', 'int16'].map((values) => [values, 2 ** 20]));
  const map = mapMemory({ plan, part: parts[0]!, maxRows: 4, maxWanted: 1, threads: 2, quantizedBytes });
  const { words, stepOf } = lower({ plan, map, choice: portable, kernels: new KernelSet() });
  return stepOf.filter((_, record) => {
    const word = words[(record * RECORD_BYTES) / 4 + 1]!;
    return word & (word & flags.replicable ? flags.barrierAlways : flags.barrier | flags.barrierAlways);
  }).length;
}

test('threads meet five times in a layer, and a few times around them', () => {
  for (const policy of ['none', 'q8_0:min-dim=1', 'q4_0:min-dim=1']) {
    // Between: q, k and v | attention | its output | gate and up, activated | down |
    for (const [shape, layers] of [
      ['gpt2', 12],
      ['tinyllama-1.1b', 22],
      ['gemma3-1b', 26],
    ] as const) {
      const most = 5 * layers + 4;
      const found = barriers(shape, policy);
      assert.ok(found <= most, `${shape} ${policy}: ${found} barriers, at most ${most}`);
    }
  }
});
