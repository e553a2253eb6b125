/** Two turns of a conversation: the second computes only the tokens that are new. */
import { load, type Message } from '../src/node.ts';

await using model = await load();
using conversation = model.conversation();
const messages: Message[] = [];
for (const content of ['Tell me about a fox.', 'And then?']) {
  messages.push({ role: 'user', content });
  console.log(`> ${content}`);
  const answer = conversation.generate({ messages }, { maxTokens: 40, temperature: 0.7, seed: 1 });
  for await (const text of answer.textStream) process.stdout.write(text);
  const { text, usage } = await answer.result;
  messages.push({ role: 'assistant', content: text });
  console.log(`\n(${usage.cachedTokens} of ${usage.promptTokens} tokens were known)`);
}
