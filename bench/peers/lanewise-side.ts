/** Lanewise, as its users load it, as one side of compare.ts: see side.ts for the messages. */
import type { Sequence } from '../../src/engine/kv-cache.ts';
import type { StepLogits } from '../../src/engine/model.ts';
import { Sampler } from '../../src/engine/sampler.ts';
import { validateSampling } from '../../src/engine/sampling-options.ts';
import { load } from '../../src/node.ts';
import { BATCH_PROMPT, type Introduction, type LanewiseOptions, type Turn } from './side.ts';

const {
  model: path,
  promptTokens,
  decodeTokens,
  sequences,
  threads,
  kvCache,
} = JSON.parse(process.argv[2]!) as LanewiseOptions;
const contextLength = promptTokens + 2 * decodeTokens;
const model = await load(path, { threads, contextLength, ...(kvCache === undefined ? {} : { kvCache }) });
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));

async function turn(): Promise<Turn> {
  const sequence = model.sequence();
  const batch = Array.from({ length: sequences }, () => model.sequence());
  try {
    const start = performance.now();
    await evaluate(sequence, prompt);
    const prefillMs = performance.now() - start;
    const decodeMs = await decode([sequence]);
    for (const [n, one] of batch.entries())
      await evaluate(
        one,
        prompt.slice(0, BATCH_PROMPT).map((id) => id + n),
      );
    return { prefillMs, decodeMs, batchMs: batch.length > 0 ? await decode(batch) : { evaluate: [], generate: [] } };
  } finally {
    for (const one of [sequence, ...batch]) one.release();
  }
}

async function evaluate(sequence: Sequence, tokens: readonly number[]): Promise<void> {
  for (let at = 0; at < tokens.length; at += model.maxRows)
    await model.step([{ sequence, tokens: tokens.slice(at, at + model.maxRows), wanted: false }]);
}

/** Tokens of some sequences side by side, in two ways: milliseconds of each round. */
async function decode(all: readonly Sequence[]): Promise<Turn['decodeMs']> {
  const [evaluate, generate]: [number[], number[]] = [[], []];
  let next = all.map(() => 301);
  const round = (wanted: boolean): Promise<StepLogits[]> =>
    model.step(all.map((sequence, n) => ({ sequence, tokens: [next[n]!], wanted })));
  for (let i = 0; i < decodeTokens; i++) {
    const before = performance.now();
    await round(false);
    evaluate.push(performance.now() - before);
  }
  for (let i = 0; i < decodeTokens; i++) {
    const before = performance.now();
    next = (await round(true)).map(greedy);
    generate.push(performance.now() - before);
  }
  return { evaluate, generate };
}

const sampler = new Sampler(validateSampling({ temperature: 0 }));
const greedy = ({ logits, summary }: StepLogits): number => sampler.sample(logits, summary).id;

/** Linear layers, and keys and values in the middle of the decoded text. */
function introduction(): Introduction {
  const { plan } = model.description;
  const output = plan.weights.find(({ role }) => role === 'output')!;
  const { bytes } = output.shares === undefined ? output : plan.weights[output.shares]!;
  return {
    bytesPerToken: {
      evaluate: model.decodeBytes(promptTokens + decodeTokens / 2) - bytes,
      generate: model.decodeBytes(promptTokens + 1.5 * decodeTokens),
    },
    operationsPerToken: plan.weights
      .filter(({ linear, role }) => linear && role !== 'output')
      .reduce((sum, { shape }) => sum + 2 * shape[0]! * shape[1]!, 0),
  };
}

process.on('message', async () => process.send!(await turn()));
process.on('disconnect', () => process.exit());
process.send!(introduction());
