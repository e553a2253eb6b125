/** Several prompts in shared forwards: each text is the one its prompt gives alone. */
import { load } from '../src/node.ts';

const model = await load();
const prompts = ['The old wizard', 'One day, a little', 'The brave fox'];
const results = await model.generateBatch(prompts, { maxTokens: 20, temperature: 0 });
for (const [index, { text }] of results.entries()) console.log(`${prompts[index]}${text}`);
await model.dispose();
