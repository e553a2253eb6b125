/** Streams a continuation of the embedded model, then prints why it ended. */
import { load } from '../src/node.ts';

await using model = await load();
const generation = model.generate('Once upon a time', { maxTokens: 40, temperature: 0.7, topK: 40, seed: 1 });
for await (const text of generation.textStream) process.stdout.write(text);
const { finishReason, usage } = await generation.result;
console.log(`\n(${finishReason} after ${usage.completionTokens} tokens)`);
