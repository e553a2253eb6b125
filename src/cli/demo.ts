/** `lanewise demo`: the embedded model tells a story, then its description and timings are printed. */
import { load } from '../node.ts';
import { reportTimings } from './generate.ts';
import { loadLine, modelLine, storageLine } from './models.ts';
import { print, reportingLoad, say } from './terminal.ts';

const prompt = 'Once upon a time';

export async function demoCommand(): Promise<number> {
  const loading = reportingLoad({});
  await using model = await load(undefined, loading.options).finally(loading.end);
  await print(prompt);
  const options = { temperature: 0.7, topK: 40, seed: 20, maxTokens: 300, timing: true };
  for await (const event of model.generate(prompt, options)) {
    if (event.type === 'token' || event.type === 'text') await print(event.text);
    if (event.type !== 'done') continue;
    await print('\n');
    say(`\n${modelLine(model.description)}\n${storageLine(model.description)}\n${loadLine(model)}\n`);
    reportTimings(event, 10);
  }
  return 0;
}
