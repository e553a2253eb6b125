/** Lanewise in a worker of the page: loads one model, then times the generations that the page requests. */
import { load } from '../../src/browser.ts';
import type { Question, Turn } from './page.ts';

const parameters = new URL(location.href).searchParams;
const model = await load(parameters.get('model')!, { threads: Number(parameters.get('threads')) });

/** Turns so far: each has a cache key of its own, so that it finds nothing that an earlier one computed. */
let turns = 0;
addEventListener('message', async ({ data }: MessageEvent<Question>) => {
  const { prompt, tokens } = data;
  const times: number[] = [];
  const start = performance.now();
  const options = { temperature: 0, maxTokens: tokens, ignoreEos: true, cacheKey: `${turns++}` };
  for await (const event of model.generate(prompt, options)) if (event.type === 'token') times.push(performance.now());
  postMessage({ start, times } satisfies Turn);
});
postMessage({ threads: model.threads });
