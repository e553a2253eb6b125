/** Rows of a forward share the weights of experts that are read; the bits of their results do not depend on it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { load } from '../../src/node.ts';

for (const name of ['mixtral', 'qwen3-moe']) {
  for (const quantize of ['none', 'q8_0', 'q4_0', 'iq4_nl']) {
    test(`${name}, ${quantize}: a batch of sequences gives the bits of each alone`, async () => {
      const folder = fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
      const model = await load(folder, { inline: true, quantize, threads: 2 });
      try {
        const prompts = [[5, 6, 7, 8, 9], [31], [100, 50, 25], [7, 6, 5, 4, 3, 2, 1]];
        const alone: Float32Array[] = [];
        for (const tokens of prompts) {
          const sequence = model.sequence();
          const [last] = await model.step([{ sequence, tokens, wanted: true }]);
          alone.push(last!.logits.slice());
          sequence.dispose();
        }
        const parts = prompts.map((tokens) => ({ sequence: model.sequence(), tokens, wanted: true }));
        const together = await model.step(parts);
        for (const [i, { logits }] of together.entries()) assert.deepEqual(logits.slice(), alone[i]);
        // Policies count the matrices of every expert, and keep the router.
        const linear = model.description.plan.weights.filter((weight) => weight.linear);
        assert.equal(
          linear.some(({ role }) => role === 'router'),
          false,
        );
        assert.ok(linear.filter(({ role }) => role === 'ffn').length > 20);
      } finally {
        await model.dispose();
      }
    });
  }
}
