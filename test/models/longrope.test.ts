/** LongRoPE: a sequence that grows beyond the limit has the bits of one that is long from the start. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Model } from '../../src/engine/model.ts';
import { type LoadOptions, load } from '../../src/node.ts';
import { readGolden } from './support.ts';

const folder = fileURLToPath(new URL('../golden/models/phi3-longrope', import.meta.url));
/** original_max_position_embeddings of the model. */
const LIMIT = 32;

async function withModel(options: LoadOptions, body: (model: Model) => Promise<void>): Promise<void> {
  const model = await load(folder, { inline: true, quantize: 'none', ...options });
  try {
    await body(model);
  } finally {
    await model.dispose();
  }
}

const greedy = { temperature: 0, maxTokens: 24, ignoreEos: true };

for (const options of [{ backend: 'reference' }, { threads: 1 }, { threads: 2 }] as const) {
  test(`greedy text across the limit is that of transformers, alone and in a batch: ${JSON.stringify(options)}`, async () => {
    const golden = await readGolden('phi3-longrope');
    await withModel(options, async (model) => {
      const prompts = golden.greedy.map(({ prompt_ids }) => ({ tokenIds: prompt_ids }));
      assert.ok(prompts.some(({ tokenIds: { length } }) => length < LIMIT && length + greedy.maxTokens > LIMIT));
      const results = await model.generateBatch(prompts, greedy);
      for (const [i, { ids }] of golden.greedy.entries()) {
        assert.deepEqual(results[i]!.tokenIds, ids);
        for await (const event of model.generate(prompts[i]!, greedy)) {
          if (event.type === 'done') assert.deepEqual(event.tokenIds, ids);
        }
      }
    });
  });
}

test('the logits after the limit do not depend on how the sequence came there', async () => {
  const [{ ids }] = (await readGolden('phi3-longrope')).inputs;
  await withModel({ threads: 2 }, async (model) => {
    const tokens = [...ids];
    /** Logits after chunks of so many tokens; negative: as many are cut off. */
    const last = async (chunks: readonly number[], expected: number): Promise<Float32Array> => {
      const sequence = model.sequence(expected);
      const other = model.sequence();
      try {
        let [at, logits] = [0, new Float32Array(0)];
        for (const count of chunks) {
          if (count < 0) {
            at += count;
            sequence.truncate(at);
            continue;
          }
          const part = { sequence, tokens: tokens.slice(at, at + count), wanted: true };
          at += count;
          // A short sequence in the same forwards keeps its own frequencies.
          const beside = { sequence: other, tokens: [tokens[at % 5]!], wanted: true };
          logits = (await model.step([part, beside]))[0]!.logits.slice();
        }
        return logits;
      } finally {
        sequence.dispose();
        other.dispose();
      }
    };
    const fresh = await last([40], 40);
    assert.deepEqual(await last([LIMIT - 1, 9], 0), fresh);
    assert.deepEqual(await last([7, 7, 7, 7, 7, 5], 40), fresh);
    assert.deepEqual(await last([LIMIT, ...Array.from({ length: 8 }, () => 1)], 0), fresh);
    assert.deepEqual(await last([40, -12, 7, 5], 0), fresh);
    assert.deepEqual(await last([40, -20, 4], 0), await last([24], 24), 'cut back to a short one');
    assert.deepEqual(await last([7, 7], 40), await last([14], 40), 'what is expected counts from the start');
    assert.notDeepEqual(await last([LIMIT], 0), await last([LIMIT], LIMIT + 1));
  });
});
