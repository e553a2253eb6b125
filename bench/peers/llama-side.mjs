/**
 * node-llama-cpp, its prebuilt llama.cpp on the CPU, as one side of compare.ts: see side.ts for the tasks. Plain
 * JavaScript, because a checkout without this folder's node_modules must pass the type check.
 */
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
import { BATCH_PROMPT, ROOM } from './side.ts';

const { model: modelPath, threads, promptTokens, decodeTokens, sequences } = JSON.parse(process.argv[2]);

const llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error, maxThreads: threads });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const open = (tokens, sequences) =>
  model.createContext({ contextSize: tokens + 2 * decodeTokens + ROOM, batchSize: 512, threads, sequences });
const context = await open(promptTokens, 1);
// Sequences of one context are evaluated together.
const batch = sequences > 0 ? await open(BATCH_PROMPT, sequences) : undefined;
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));
const next = 301;

/** Those that are decoded now, and what generates their tokens, once they are generated. */
let all = [];
let streams;

async function begin(sequences) {
  if (streams) await Promise.all(streams.map((stream) => stream.return()));
  for (const sequence of all) sequence.dispose();
  all = sequences();
  streams = undefined;
}

async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** A token of every sequence: evaluated alone, or generated greedily as a user of the library sees it. */
const rounds = {
  evaluate: () => Promise.all(all.map((sequence) => sequence.evaluateWithoutGeneratingNewTokens([next]))),
  generate: () => Promise.all(streams.map((stream) => stream.next())),
};

const tasks = {
  async prompt() {
    await begin(() => [context.getSequence()]);
    return [await timed(() => all[0].evaluateWithoutGeneratingNewTokens(prompt))];
  },
  async batch() {
    await begin(() => Array.from({ length: sequences }, () => batch.getSequence()));
    // Prompts of their own, or the library would share them.
    const start = prompt.slice(0, BATCH_PROMPT);
    await Promise.all(all.map((one, n) => one.evaluateWithoutGeneratingNewTokens(start.map((id) => id + n))));
    return [];
  },
  async decode({ way, rounds: count }) {
    if (way === 'generate' && !streams) {
      streams = all.map((sequence) => sequence.evaluate([next], { temperature: 0, yieldEogToken: true }));
      // The first token also evaluates what went before.
      await rounds.generate();
    }
    const times = [];
    for (let i = 0; i < count; i++) times.push(await timed(rounds[way]));
    return times;
  },
};

process.on('message', async (asked) => process.send(await tasks[asked.task](asked)));
process.on('disconnect', () => process.exit());
process.send({});
