/** Lanewise, as its users load it, as one side of compare.ts: see side.ts for the messages. */
import { load } from '../../src/node.ts';
import { storageBytes } from '../../src/quant/storage.ts';
import type { Introduction, LanewiseOptions, Turn } from './side.ts';

const options = JSON.parse(process.argv[2]!) as LanewiseOptions;
const { promptTokens, decodeTokens, threads, quantize } = options;
const contextLength = promptTokens + decodeTokens;
const model = await load(options.model, { quantize, threads, contextLength });
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));

async function turn(): Promise<Turn> {
  const sequence = model.sequence();
  try {
    const start = performance.now();
    let next = 0;
    for (let at = 0; at < promptTokens; at += model.maxRows) {
      const tokens = prompt.slice(at, at + model.maxRows);
      const [logits] = await model.step([{ sequence, tokens, wanted: at + tokens.length === promptTokens }]);
      if (logits) next = greedy(logits);
    }
    const prefillMs = performance.now() - start;
    const decodeMs: number[] = [];
    for (let i = 0; i < decodeTokens; i++) {
      const before = performance.now();
      const [logits] = await model.step([{ sequence, tokens: [next], wanted: true }]);
      next = greedy(logits!);
      decodeMs.push(performance.now() - before);
    }
    return { prefillMs, decodeMs: [decodeMs] };
  } finally {
    sequence.release();
  }
}

function greedy(logits: Float32Array): number {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  return best;
}

/** Linear layers, and keys and values in the middle of the decoded text. */
function introduction(): Introduction {
  const { weights, caches } = model.description.plan;
  const linear = weights.filter((weight) => weight.linear);
  const position = promptTokens + decodeTokens / 2;
  const cached = caches.map(
    ({ kvHeads, headDim, window = position }) => Math.min(window, position) * kvHeads * headDim * 2 * 4,
  );
  const matrices = linear.map(({ shape, storage }) => shape[0]! * storageBytes(storage, shape[1]!));
  return {
    bytesPerToken: [...matrices, ...cached].reduce((sum, bytes) => sum + bytes, 0),
    operationsPerToken: linear
      .filter(({ role }) => role !== 'output')
      .reduce((sum, { shape }) => sum + 2 * shape[0]! * shape[1]!, 0),
  };
}

process.on('message', async () => process.send!(await turn()));
process.on('disconnect', () => process.exit());
process.send!(introduction());
