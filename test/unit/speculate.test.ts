/** Guessing ahead changes the time, never the text. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import type { GenerateOptions, GenerateResult, Model, Prompt } from '../../src/node.ts';
import { load } from '../../src/node.ts';
import { PromptLookup } from '../../src/schedule/lookup.ts';

async function generate(model: Model, prompt: Prompt, options: GenerateOptions): Promise<GenerateResult> {
  for await (const event of model.generate(prompt, options)) if (event.type === 'done') return event;
  throw new Error('no done event');
}

test('the same tokens and text with drafts and without, greedy or drawn, up to the end of the context', async () => {
  const model = await load(undefined, { inline: true, contextLength: 200 });
  try {
    const story = (await generate(model, 'Once upon a time', { temperature: 0, maxTokens: 60 })).text;
    for (const options of [
      { temperature: 0, maxTokens: 80 },
      { temperature: 0, maxTokens: 7 },
      { temperature: 0, maxTokens: 500, ignoreEos: true },
      { temperature: 0.6, seed: 3, maxTokens: 80 },
      { temperature: 0, maxTokens: 80, repetitionPenalty: 1.2, stop: 'the' },
    ] satisfies GenerateOptions[]) {
      const prompt = `${story} Once upon a time${story.slice(0, 60)}`;
      const plain = await generate(model, prompt, options);
      for (const speculate of [1, 5, 32]) {
        const fast = await generate(model, prompt, { ...options, speculate });
        assert.deepEqual(
          [fast.tokenIds, fast.text, fast.finishReason],
          [plain.tokenIds, plain.text, plain.finishReason],
          JSON.stringify({ ...options, speculate }),
        );
        assert.equal(fast.usage.completionTokens, plain.usage.completionTokens);
        assert.ok(fast.usage.acceptedDraftTokens! <= fast.usage.draftTokens!);
        // A forward each, but for the tokens that were guessed.
        assert.ok(fast.timings.steps.length <= plain.timings.steps.length);
      }
      assert.equal(plain.usage.draftTokens, undefined);
    }
  } finally {
    await model.dispose();
  }
});

test('a text that repeats itself takes few forwards', async () => {
  // Random weights: after some tokens they go in circles.
  const model = await load(fileURLToPath(new URL('../golden/models/falcon-7b', import.meta.url)), {
    inline: true,
  });
  try {
    const options = { temperature: 0, maxTokens: 60, ignoreEos: true };
    const plain = await generate(model, { tokenIds: [5, 6, 7] }, options);
    const fast = await generate(model, { tokenIds: [5, 6, 7] }, { ...options, speculate: 8 });
    assert.deepEqual(fast.tokenIds, plain.tokenIds);
    assert.ok(fast.usage.acceptedDraftTokens! > 20, `${fast.usage.acceptedDraftTokens} accepted`);
    assert.ok(fast.timings.steps.length < 40, `${fast.timings.steps.length} forwards for 60 tokens`);
  } finally {
    await model.dispose();
  }
});

test('drafts are what followed last time; they grow when right, shrink and pause when wrong', () => {
  const lookup = new PromptLookup(8);
  assert.deepEqual(lookup.propose([1, 2, 3, 4, 5, 1, 2], 8), [3, 4, 5, 1]);
  assert.deepEqual(lookup.propose([1, 2, 3, 4, 5, 1, 2], 2), [3, 4]);
  assert.deepEqual(lookup.propose([1, 2, 9, 7, 1, 2, 3, 7, 1, 2], 8), [3, 7, 1, 2], 'the latest occurrence counts');
  assert.deepEqual(lookup.propose([1, 2, 3], 8), []);
  assert.deepEqual(lookup.propose([1, 2, 3, 1, 2], 0), []);
  const history = [...Array(20).keys(), 0, 1, 2];
  lookup.judge(4, 4);
  assert.equal(lookup.propose(history, 8).length, 8);
  lookup.judge(8, 2);
  assert.equal(lookup.propose(history, 8).length, 2);
  lookup.judge(2, 0);
  assert.deepEqual(
    [1, 2, 3].map(() => lookup.propose(history, 8).length),
    [0, 0, 1],
  );
  assert.deepEqual([lookup.proposed, lookup.accepted], [14, 6]);
});
