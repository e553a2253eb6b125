/** Lanewise in a worker of the page: loads one model, then times the generations that the page requests. */
import { load } from '../../src/browser.ts';
import type { Question, Turn } from './page.ts';

const parameters = new URL(location.href).searchParams;
const model = await load(parameters.get('model')!, { threads: Number(parameters.get('threads')) });

addEventListener('message', async ({ data }: MessageEvent<Question>) => {
  const { prompt, tokens } = data;
  const times: number[] = [];
  const start = performance.now();
  for await (const event of model.generate(prompt, { temperature: 0, maxTokens: tokens, ignoreEos: true }))
    if (event.type === 'token') times.push(performance.now());
  postMessage({ start, times } satisfies Turn);
});
postMessage({ threads: model.threads });
