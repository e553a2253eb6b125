/** Lanewise, as its users load it, as one side of compare.ts: see side.ts for the messages. */

import type { StepLogits } from '../../src/engine/model.ts';
import { Sampler } from '../../src/engine/sampler.ts';
import { validateSampling } from '../../src/engine/sampling-options.ts';
import { load } from '../../src/node.ts';
import type { Introduction, LanewiseOptions, Turn } from './side.ts';

const options = JSON.parse(process.argv[2]!) as LanewiseOptions;
const { promptTokens, decodeTokens, threads, quantize } = options;
const contextLength = promptTokens + 2 * decodeTokens;
const model = await load(options.model, { quantize, threads, contextLength });
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));

async function turn(): Promise<Turn> {
  const sequence = model.sequence();
  try {
    const start = performance.now();
    let next = 0;
    for (let at = 0; at < promptTokens; at += model.maxRows) {
      const tokens = prompt.slice(at, at + model.maxRows);
      const [last] = await model.step([{ sequence, tokens, wanted: at + tokens.length === promptTokens }]);
      if (last) next = greedy(last);
    }
    const prefillMs = performance.now() - start;
    const [evaluateMs, generateMs]: [number[], number[]] = [[], []];
    for (let i = 0; i < decodeTokens; i++) {
      const before = performance.now();
      await model.step([{ sequence, tokens: [next], wanted: false }]);
      evaluateMs.push(performance.now() - before);
    }
    for (let i = 0; i < decodeTokens; i++) {
      const before = performance.now();
      const [last] = await model.step([{ sequence, tokens: [next], wanted: true }]);
      next = greedy(last!);
      generateMs.push(performance.now() - before);
    }
    return { prefillMs, decodeMs: { evaluate: evaluateMs, generate: generateMs } };
  } finally {
    sequence.release();
  }
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
