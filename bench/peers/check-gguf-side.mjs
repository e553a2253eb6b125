/** node-llama-cpp's answers for check-gguf.ts. Plain JavaScript, as llama-side.mjs is. */
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

const { modelPath, prompt, text, count } = JSON.parse(process.argv[2]);
const llama = await getLlama({ build: 'never', gpu: false, logLevel: LlamaLogLevel.error, maxThreads: 1 });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({ contextSize: 128, threads: 1, sequences: 1 });
const sequence = context.getSequence();
const ids = [];
for await (const id of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
  ids.push(id);
  if (ids.length === count) break;
}
console.log(JSON.stringify({ ids, text: [...model.tokenize(text)] }));
process.exit();
