/** Script of the page: runs Lanewise and wllama with the same file in turns, and posts the times. */

export interface Question {
  readonly prompt: string;
  readonly tokens: number;
}

/** Start of a generation and time of each token, in milliseconds. */
export interface Turn {
  readonly start: number;
  readonly times: readonly number[];
}

export interface Posted {
  readonly engines: readonly Measured[];
}

export interface Measured {
  readonly engine: string;
  readonly threads: number;
  readonly turns: readonly Turn[];
}

interface Engine {
  readonly engine: string;
  readonly threads: number;
  turn(): Promise<Turn>;
}

/** The part of wllama's API that is used. */
interface Wllama {
  loadModel(files: Blob[], options: object): Promise<void>;
  createCompletion(options: object): Promise<AsyncIterable<{ choices: { text: string }[] }>>;
  getNumThreads(): number;
}

const parameters = new URL(location.href).searchParams;
const number = (name: string): number => Number(parameters.get(name));
const question: Question = { prompt: parameters.get('prompt')!, tokens: number('tokens') };

async function openLanewise(): Promise<Engine> {
  const worker = new Worker(new URL(`./lanewise-worker.ts${location.search}`, import.meta.url), { type: 'module' });
  const answer = <T>(): Promise<T> =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
  const { threads } = await answer<{ threads: number }>();
  return {
    engine: 'Lanewise',
    threads,
    turn() {
      const turn = answer<Turn>();
      worker.postMessage(question);
      return turn;
    },
  };
}

async function openWllama(): Promise<Engine> {
  const folder = '/bench/browser/node_modules/@wllama/wllama/esm/';
  const { Wllama } = await import(`${folder}index.js`);
  const wllama: Wllama = new Wllama({ default: `${location.origin}${folder}wasm/wllama.wasm` });
  const file = await (await fetch(parameters.get('model')!)).blob();
  await wllama.loadModel([file], { n_threads: number('threads'), n_ctx: 1024 });
  const turn = async (): Promise<Turn> => {
    const times: number[] = [];
    const start = performance.now();
    const { prompt, tokens } = question;
    const options = { prompt, max_tokens: tokens, temperature: 0, ignore_eos: true, cache_prompt: false, stream: true };
    for await (const _ of await wllama.createCompletion(options)) times.push(performance.now());
    return { start, times };
  };
  return { engine: 'wllama', threads: wllama.getNumThreads(), turn };
}

const openers: Readonly<Record<string, () => Promise<Engine>>> = { lanewise: openLanewise, wllama: openWllama };
const measured: (Engine & { readonly turns: Turn[] })[] = [];
for (const name of parameters.get('engines')!.split(',')) measured.push({ ...(await openers[name]!()), turns: [] });
for (let turn = 0; turn <= number('turns'); turn++) {
  for (const one of turn % 2 === 0 ? measured : measured.toReversed()) {
    const result = await one.turn();
    // The first turn of each is a warm-up.
    if (turn > 0) one.turns.push(result);
  }
}
const posted: Posted = { engines: measured.map(({ engine, threads, turns }) => ({ engine, threads, turns })) };
await fetch('/result', { method: 'POST', body: JSON.stringify(posted) });
