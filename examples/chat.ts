/** Two turns of a conversation: the second computes only the tokens that are new. */
import { load, type Message } from '../src/node.ts';

const model = await load();
const conversation = model.conversation();
const messages: Message[] = [];
for (const content of ['Tell me about a fox.', 'And then?']) {
  messages.push({ role: 'user', content });
  console.log(`> ${content}`);
  for await (const event of conversation.generate({ messages }, { maxTokens: 40, temperature: 0.7, seed: 1 })) {
    if (event.type === 'token' || event.type === 'text') process.stdout.write(event.text);
    if (event.type !== 'done') continue;
    messages.push({ role: 'assistant', content: event.text });
    console.log(`\n(${event.usage.cachedTokens} of ${event.usage.promptTokens} tokens were known)`);
  }
}
await model.dispose();
