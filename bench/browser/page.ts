/** In the page: Lanewise in a worker and wllama in its own workers, the same file, taking turns; posts the times. */

export interface Question {
  readonly prompt: string;
  readonly tokens: number;
}

/** A generation: when it began, and when each token came, in milliseconds. */
export interface Turn {
  readonly start: number;
  readonly times: readonly number[];
}

export interface Posted {
  readonly lanewise: readonly Turn[];
  readonly wllama: readonly Turn[];
  readonly threads: { readonly lanewise: number; readonly wllama: number };
}

/** As much of wllama as is used here. */
interface Wllama {
  loadModel(files: Blob[], options: object): Promise<void>;
  createCompletion(options: object): Promise<AsyncIterable<{ choices: { text: string }[] }>>;
  getNumThreads(): number;
}

const parameters = new URL(location.href).searchParams;
const number = (name: string): number => Number(parameters.get(name));
const question: Question = { prompt: parameters.get('prompt')!, tokens: number('tokens') };

const worker = new Worker(new URL(`./lanewise-worker.ts${location.search}`, import.meta.url), { type: 'module' });
const answer = <T>(): Promise<T> =>
  new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
  });

async function openWllama(): Promise<Wllama> {
  const folder = '/bench/browser/node_modules/@wllama/wllama/esm/';
  const { Wllama } = await import(`${folder}index.js`);
  const wllama: Wllama = new Wllama({ default: `${location.origin}${folder}wasm/wllama.wasm` });
  const file = await (await fetch(parameters.get('model')!)).blob();
  await wllama.loadModel([file], { n_threads: number('threads'), n_ctx: 1024 });
  return wllama;
}

async function wllamaTurn(wllama: Wllama): Promise<Turn> {
  const times: number[] = [];
  const start = performance.now();
  const { prompt, tokens } = question;
  const options = { prompt, max_tokens: tokens, temperature: 0, ignore_eos: true, cache_prompt: false, stream: true };
  for await (const _ of await wllama.createCompletion(options)) times.push(performance.now());
  return { start, times };
}

function lanewiseTurn(): Promise<Turn> {
  const turn = answer<Turn>();
  worker.postMessage(question);
  return turn;
}

const { threads } = await answer<{ threads: number }>();
const wllama = await openWllama();
const turns: { lanewise: Turn[]; wllama: Turn[] } = { lanewise: [], wllama: [] };
for (let turn = 0; turn <= number('turns'); turn++) {
  const order = [
    async () => turns.lanewise.push(await lanewiseTurn()),
    async () => turns.wllama.push(await wllamaTurn(wllama)),
  ];
  for (const one of turn % 2 === 0 ? order : order.reverse()) await one();
}
// The first turn of each warms up.
const posted: Posted = {
  lanewise: turns.lanewise.slice(1),
  wllama: turns.wllama.slice(1),
  threads: { lanewise: threads, wllama: wllama.getNumThreads() },
};
await fetch('/result', { method: 'POST', body: JSON.stringify(posted) });
