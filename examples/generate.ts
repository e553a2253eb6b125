/** Streams a continuation of the embedded model, then says how it ended. */
import { load } from '../src/node.ts';

const model = await load();
for await (const event of model.generate('Once upon a time', { maxTokens: 40, temperature: 0.7, topK: 40, seed: 1 })) {
  if (event.type === 'token' || event.type === 'text') process.stdout.write(event.text);
  if (event.type === 'done') console.log(`\n(${event.finishReason} after ${event.usage.completionTokens} tokens)`);
}
await model.dispose();
