/**
 * node-llama-cpp, its prebuilt llama.cpp on the CPU, as one side of compare.ts: see side.ts for the messages. Plain
 * JavaScript, because a checkout without this folder's node_modules must pass the type check.
 */
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const { model: modelPath, threads, promptTokens, decodeTokens } = JSON.parse(process.argv[2]);

const llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error, maxThreads: threads });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const contextSize = promptTokens + 2 * decodeTokens + 64;
const context = await model.createContext({ contextSize, batchSize: 512, threads, sequences: 1 });
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));
const next = 301;

/** Milliseconds of the whole prompt, and of each token in two ways. */
async function turn() {
  const sequence = context.getSequence();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(prompt);
  const prefillMs = performance.now() - start;

  // One token evaluated a call, nothing sampled.
  const evaluateMs = [];
  for (let i = 0; i < decodeTokens; i++) {
    const before = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens([next]);
    evaluateMs.push(performance.now() - before);
  }

  // Greedy generation as a user of the library sees it; the first token also evaluates what went before.
  const generateMs = [];
  let last = performance.now();
  for await (const _ of sequence.evaluate([next], { temperature: 0, yieldEogToken: true })) {
    const now = performance.now();
    generateMs.push(now - last);
    last = now;
    if (generateMs.length > decodeTokens) break;
  }
  sequence.dispose();
  return { prefillMs, decodeMs: { evaluate: evaluateMs, generate: generateMs.slice(1) } };
}

process.on('message', async () => process.send(await turn()));
process.on('disconnect', () => process.exit());
process.send({});
