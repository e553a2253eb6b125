/** What clients of the soak ask for: requests that come again and again, and such as must be refused. */
import type { GenerateOptions, Message, Prompt } from '../../src/node.ts';

export interface SoakRequest {
  readonly prompt: Prompt;
  readonly options: GenerateOptions;
}

/** Numbers in [0, 1), the same for the same seed (P. L'Ecuyer's constants of a Lehmer generator). */
export function randomOf(seed: number): () => number {
  let state = (seed % 2147483646) + 1;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

const beginnings = [
  'Once upon a time, a shy knight named Sam lived in a small castle with a big gate.',
  'One day, the old wizard lost his hat in the forest, and all the birds laughed.',
  'Lily had a red ball. She liked to play with it in the garden behind the house.',
  'The little boat wanted to see the sea.',
];

const samplings: readonly GenerateOptions[] = [
  { temperature: 0 },
  { temperature: 0.8, topP: 0.95 },
  { temperature: 1, topK: 40, repetitionPenalty: 1.1 },
  { temperature: 0, speculate: 4, ignoreEos: true },
  { temperature: 0.7, minP: 0.05, presencePenalty: 0.3, logprobs: 2 },
];

/** A request with a secret of its own (a number that no other one has), behind a beginning that others share. */
export function requestOf(random: () => number, secret: number): SoakRequest {
  const pick = (most: number): number => Math.floor(random() * most);
  const beginning = beginnings[pick(beginnings.length)]!;
  const repeats = 1 + pick(12);
  const prompt = `${`${beginning} `.repeat(repeats)}The number of the day was ${secret}.`;
  const stop = pick(4) === 0 ? { stop: [' the end', '\n\n'] } : {};
  return {
    prompt,
    options: {
      ...samplings[pick(samplings.length)]!,
      ...stop,
      maxTokens: 4 + pick(60),
      seed: pick(1000),
      priority: pick(8) === 0 ? -1 : pick(8) === 0 ? 1 : 0,
      fairnessKey: `client ${pick(5)}`,
    },
  };
}

/** Requests that must be refused, and the codes of their errors. */
export function malformedOf(random: () => number, contextLength: number): SoakRequest & { readonly code: string } {
  const pick = (most: number): number => Math.floor(random() * most);
  const cases: (SoakRequest & { code: string })[] = [
    { prompt: 'x', options: { topP: 7 }, code: 'InvalidOption' },
    { prompt: 'x', options: { temperature: Number.NaN }, code: 'InvalidOption' },
    { prompt: 'x', options: { maxToken: 3 } as GenerateOptions, code: 'InvalidOption' },
    { prompt: { tokenIds: [] }, options: {}, code: 'InvalidOption' },
    { prompt: { tokenIds: [-1] }, options: {}, code: 'InvalidOption' },
    { prompt: { tokenIds: [2 ** 31] }, options: {}, code: 'InvalidOption' },
    { prompt: 5 as unknown as Prompt, options: {}, code: 'InvalidOption' },
    { prompt: { tokenIds: new Array(contextLength + 1).fill(5) }, options: {}, code: 'ContextLengthExceeded' },
    { prompt: 'word '.repeat(contextLength * 2), options: {}, code: 'ContextLengthExceeded' },
    { prompt: { messages: 'hi' as unknown as Message[] }, options: {}, code: 'InvalidOption' },
  ];
  return cases[pick(cases.length)]!;
}
