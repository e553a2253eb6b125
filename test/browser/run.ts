/** The embedded model's greedy text with log-probabilities: equal bits give equal numbers. */
import { load } from '../../src/browser.ts';

export async function run(): Promise<unknown> {
  try {
    const warnings: string[] = [];
    const onWarning = (text: string): number => warnings.push(text);
    const model = await load(`${location.origin}/models/lanewise-stories`, { onWarning });
    const tokens: { id: number; logprob: number }[] = [];
    let text = '';
    for await (const event of model.generate('Once upon a time', { temperature: 0, maxTokens: 40 })) {
      if (event.type === 'token') tokens.push({ id: event.id, logprob: event.logprob });
      if (event.type === 'done') text = event.text;
    }
    const { threads } = model;
    await model.dispose();
    return { text, tokens, threads, warnings };
  } catch (error) {
    return { error: String(error) };
  }
}
