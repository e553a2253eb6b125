/**
 * node-llama-cpp, its prebuilt llama.cpp on the CPU, as one side of compare.ts: see side.ts for the messages. Plain
 * JavaScript, because a checkout without this folder's node_modules must pass the type check.
 */
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
import { BATCH_PROMPT } from './side.ts';

const { model: modelPath, threads, promptTokens, decodeTokens, sequences } = JSON.parse(process.argv[2]);

const llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error, maxThreads: threads });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const open = (tokens, sequences) =>
  model.createContext({ contextSize: tokens + 2 * decodeTokens + 64, batchSize: 512, threads, sequences });
const context = await open(promptTokens, 1);
// Sequences of one context are evaluated together.
const batch = sequences > 0 ? await open(BATCH_PROMPT, sequences) : undefined;
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));
const next = 301;

/** Tokens of some sequences side by side, in two ways: milliseconds of each round. */
async function decode(all) {
  // One token evaluated a call, nothing sampled.
  const evaluate = [];
  for (let i = 0; i < decodeTokens; i++) {
    const before = performance.now();
    await Promise.all(all.map((sequence) => sequence.evaluateWithoutGeneratingNewTokens([next])));
    evaluate.push(performance.now() - before);
  }
  // Greedy generation as a user of the library sees it; the first token also evaluates what went before.
  const generate = [];
  const streams = all.map((sequence) => sequence.evaluate([next], { temperature: 0, yieldEogToken: true }));
  for (let i = 0; i <= decodeTokens; i++) {
    const before = performance.now();
    await Promise.all(streams.map((stream) => stream.next()));
    generate.push(performance.now() - before);
  }
  await Promise.all(streams.map((stream) => stream.return()));
  return { evaluate, generate: generate.slice(1) };
}

async function turn() {
  const sequence = context.getSequence();
  const start = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(prompt);
  const prefillMs = performance.now() - start;
  const decodeMs = await decode([sequence]);
  sequence.dispose();
  const all = Array.from({ length: batch ? sequences : 0 }, () => batch.getSequence());
  // Prompts of their own, or the library would share them.
  await Promise.all(
    all.map((one, n) => one.evaluateWithoutGeneratingNewTokens(prompt.slice(0, BATCH_PROMPT).map((id) => id + n))),
  );
  const batchMs = all.length > 0 ? await decode(all) : { evaluate: [], generate: [] };
  for (const one of all) one.dispose();
  return { prefillMs, decodeMs, batchMs };
}

process.on('message', async () => process.send(await turn()));
process.on('disconnect', () => process.exit());
process.send({});
