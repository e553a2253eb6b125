/** Several prompts in shared forwards. Each text equals that of its prompt alone, and is printed as soon as it is done. */
import { load } from '../src/node.ts';

await using model = await load();
const prompts = ['The old wizard', 'One day, a little', 'The brave fox'];
for await (const event of model.generateStream(prompts, { maxTokens: 20, temperature: 0 })) {
  if (event.type !== 'done') continue;
  console.log(event.error ? event.error.message : `${prompts[event.index]}${event.text}`);
}
