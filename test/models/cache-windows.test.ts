/** Layers with a window give up what they see no more where memory is short: the same bits, more texts at once. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { type GenerateResult, type LoadOptions, load, type Model } from '../../src/node.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const PAGE = 64;
const options = { temperature: 0, ignoreEos: true, maxTokens: 40, logprobs: 1 } as const;
const ids = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => 3 + ((i * 7 + i * i * seed + seed * 5) % 50));

interface Outcome {
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly number[];
}

async function outcomes(model: Model, prompts: readonly { tokenIds: number[] }[]): Promise<Outcome[]> {
  const logprobs: number[][] = prompts.map(() => []);
  const results: GenerateResult[] = [];
  for await (const event of model.generateStream(prompts, options)) {
    if (event.type === 'token') logprobs[event.index]!.push(event.logprob);
    if (event.type === 'done') results[event.index] = event;
  }
  return results.map(({ tokenIds, error }, i) => {
    assert.equal(error, undefined);
    return { tokenIds, logprobs: logprobs[i]! };
  });
}

const setups: readonly (readonly [name: string, options: LoadOptions])[] = [
  ['mistral-window', { threads: 2 }],
  ['qwen2-window', { threads: 1, kvCache: 'f16' }],
  ['gemma4-moe', { threads: 2, kvCache: 'f16' }],
  ['gemma4-moe', { backend: 'reference' }],
];

for (const [name, setup] of setups) {
  test(`${name}, ${JSON.stringify(setup)}: texts in a small cache have the bits of each alone`, async () => {
    const prompts = [210, 150, 215, 80].map((count, i) => ({ tokenIds: ids(count, i + 1) }));
    const load4 = (pages: number): Promise<Model> =>
      load(golden(name), { ...setup, inline: true, contextLength: 4 * PAGE, cacheTokens: pages * PAGE });
    const expected: Outcome[] = [];
    for (const prompt of prompts) {
      await using alone = await load4(8);
      expected.push(...(await outcomes(alone, [prompt])));
      assert.equal(alone.stats().pages.shrunk, 0, 'nothing is given up where there is room');
    }
    await using model = await load4(6);
    assert.deepEqual(await outcomes(model, prompts), expected);
    const { shrunk, used, capacity } = model.stats().pages;
    assert.ok(shrunk > 0);
    assert.deepEqual([used, capacity], [0, 6]);
    // What is left of them is found again, or computed anew.
    assert.deepEqual(await outcomes(model, prompts.toReversed()), expected.toReversed());
    // A text that goes back to where it had been, and on from there.
    const longer = { tokenIds: [...prompts[0]!.tokenIds.slice(0, 130), ...ids(60, 9)] };
    await using fresh = await load4(8);
    assert.deepEqual(await outcomes(model, [longer]), await outcomes(fresh, [longer]));
    assert.equal(model.stats().pages.used, 0);
  });
}
