/** Guessing ahead changes the time, never the text. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { PromptLookup } from '../../src/drafting/lookup.ts';
import type { GenerateOptions, GenerateResult, Model, Prompt } from '../../src/node.ts';
import { load } from '../../src/node.ts';

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

test('looked-up drafts are what followed last time, also as the text grows', () => {
  const lookup = new PromptLookup();
  assert.deepEqual(lookup.lookUp([1, 2, 3, 4, 5, 1, 2], 4), [3, 4, 5, 1]);
  assert.deepEqual(lookup.lookUp([1, 2, 3, 4, 5, 1, 2], 2), [3, 4]);
  assert.deepEqual(lookup.lookUp([1, 2, 9, 7, 1, 2, 3, 7, 1, 2], 4), [3, 7, 1, 2], 'the latest occurrence counts');
  assert.deepEqual(lookup.lookUp([1, 2, 9, 7, 1, 2, 3, 8, 7, 1, 2], 1), [3], 'the longest match counts');
  assert.deepEqual(lookup.lookUp([1, 2, 3], 8), []);
  const history: number[] = [];
  for (let i = 0; i < 500; i++) {
    history.push((i * i + (i >> 3)) % 7);
    assert.deepEqual(lookup.lookUp(history, 5), searched(history, 5), `after ${i + 1} tokens`);
  }
});

/** The same by a search of the whole text. */
function searched(history: readonly number[], most: number): readonly number[] {
  for (let length = Math.min(4, history.length - 1); length >= 2; length--) {
    const tail = history.slice(-length).join();
    for (let end = history.length - 1; end >= length; end--)
      if (history.slice(end - length, end).join() === tail) return history.slice(end, end + most);
  }
  return [];
}
