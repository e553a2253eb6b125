/** Models that generate at the same time in one process give what each gives alone. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { load, type Model } from '../../src/node.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/models/${name}`, import.meta.url));
const tokenIds = [3, 4, 5, 6, 7];

/** Tokens and the bits of their log-probabilities, of a sampled and of a greedy text. */
function texts(model: Model): Promise<(readonly (readonly [number, number])[])[]> {
  const options = [{ temperature: 0.9, seed: 7 }, { temperature: 0 }];
  return Promise.all(
    options.map(async (option) => {
      const tokens: [number, number][] = [];
      for await (const event of model.generate({ tokenIds }, { ...option, maxTokens: 24, ignoreEos: true }))
        if (event.type === 'token') tokens.push([event.id, event.logprob]);
      return tokens;
    }),
  );
}

for (const threads of [1, 3]) {
  test(`two models, ${threads} threads each, in one thread of the program`, async () => {
    const names = ['llama-gqa-f16', 'gpt2-tied-f32'].map(golden);
    const open = (name: string): Promise<Model> => load(name, { inline: true, threads });
    const alone: Awaited<ReturnType<typeof texts>>[] = [];
    for (const name of names) {
      await using model = await open(name);
      alone.push(await texts(model));
    }
    await using first = await open(names[0]!);
    await using second = await open(names[1]!);
    await using third = await open(names[0]!);
    const together = await Promise.all([first, second, third].map(texts));
    assert.deepEqual(together, [alone[0], alone[1], alone[0]]);
    assert.deepEqual(
      together.flat().map(({ length }) => length),
      Array(6).fill(24),
    );
  });
}
