/** The jobs of a page or worker, by their names in its address; what comes out is posted. */
import type { WebLoadOptions, WebModelSource } from '../../src/browser.ts';
import { type Outcome, outcomeOf } from './outcome.ts';

export type Outcomes = Readonly<
  Record<
    string,
    | Outcome
    | { readonly error: string }
    | { readonly stopped: number }
    | { readonly turns: number; readonly ms: number }
    | MemoryOutcome
    | TraceOutcome
  >
>;

export interface TraceOutcome {
  readonly trace: string;
  readonly text: string;
  readonly threads: number;
  /** Whether the replay was equal. */
  readonly equal: boolean;
}

/** Memory as estimated and as it is, and what the model says of itself. */
export interface MemoryOutcome {
  readonly estimated: object;
  readonly taken: object;
  readonly explained: Readonly<Record<string, unknown>>;
}

const parameters = new URLSearchParams(location.search);

/** Simulates engines without shared memory, and machines with another number of cores: for this thread. */
function pretend(): void {
  if (parameters.has('unshared')) Reflect.deleteProperty(globalThis, 'SharedArrayBuffer');
  const cores = Number(parameters.get('cores'));
  if (cores > 0) Object.defineProperty(navigator, 'hardwareConcurrency', { value: cores });
}

const folder = `${location.origin}/models/lanewise-stories`;

async function fileAt(address: string): Promise<File> {
  return new File([await (await fetch(address)).blob()], address.slice(address.lastIndexOf('/') + 1));
}

/** A folder of the page's own, filled with the model's files. */
async function ownFolder(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage.getDirectory();
  const handle = await root.getDirectoryHandle('stories', { create: true });
  for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors']) {
    const writable = await (await handle.getFileHandle(name, { create: true })).createWritable();
    await writable.write(await fileAt(`${folder}/${name}`));
    await writable.close();
  }
  return handle;
}

const jobs: Readonly<Record<string, () => Promise<[WebModelSource, WebLoadOptions]>>> = {
  folder: async () => [folder, {}],
  one: async () => [folder, { threads: 1 }],
  two: async () => [folder, { threads: 2 }],
  inline: async () => [folder, { inline: true }],
  inlineTwo: async () => [folder, { inline: true, threads: 2 }],
  relative: async () => [new URL(folder).pathname, { threads: 2 }],
  gguf: async () => [`${location.origin}/given/stories-Q8_0.gguf`, {}],
  hub: async () => ['org/stories:Q8_0', { endpoint: location.origin }],
  file: async () => [await fileAt(`${location.origin}/given/stories-Q8_0.gguf`), {}],
  handle: async () => [await ownFolder(), {}],
};

/** Turns of a timer of 5 ms while a long prompt is computed. */
async function turns(): Promise<{ turns: number; ms: number }> {
  const { load } = await import('../../src/browser.ts');
  const model = await load(folder, { backend: 'reference' });
  let turns = 0;
  const start = performance.now();
  const timer = setInterval(() => turns++, 5);
  await model.complete({ tokenIds: Array.from({ length: 64 }, (_, i) => i + 1) }, { maxTokens: 1 });
  clearInterval(timer);
  const ms = performance.now() - start;
  await model.dispose();
  return { turns, ms };
}

/** Milliseconds until a timer of 20 ms stopped an endless text. */
async function stopped(): Promise<{ stopped: number }> {
  const { load } = await import('../../src/browser.ts');
  const model = await load(folder);
  const controller = new AbortController();
  const start = performance.now();
  setTimeout(() => controller.abort(), 20);
  const options = { ignoreEos: true, maxTokens: 500, signal: controller.signal };
  try {
    for await (const _ of model.generate('Once', options));
    return { stopped: Number.POSITIVE_INFINITY };
  } catch {
    return { stopped: performance.now() - start };
  } finally {
    await model.dispose();
  }
}

/** With a whole context of keys and values. */
async function memory(): Promise<MemoryOutcome> {
  const { estimateMemory, load } = await import('../../src/browser.ts');
  const { rows } = await estimateMemory(folder, { policies: ['q8_0'], contexts: [512] });
  const { weights, activations, cache } = rows[0]!.memory!;
  const model = await load(folder, { quantize: 'q8_0', contextLength: 512 });
  const sequence = model.sequence();
  await sequence.reserve(512);
  // A hosted engine reports its memory with the result of the next call.
  await model.step([{ sequence, tokens: [1], wanted: false }]);
  const outcome = {
    estimated: { weights, activations, cache },
    taken: model.memory(),
    explained: Object.fromEntries(model.explain().map(({ key, value }) => [key, value])),
  };
  await model.dispose();
  return outcome;
}

/** The trace of a short text, and a replay of its recording. */
async function traced(): Promise<TraceOutcome> {
  const { load, parseRecording, Recording, replayRecording, Trace } = await import('../../src/browser.ts');
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  const trace = new Trace((bytes) => pieces.push(bytes));
  const lines: string[] = [];
  const record = new Recording((entry) => lines.push(JSON.stringify(entry)));
  const model = await load(folder, { trace, record, threads: 2 });
  const { text } = await model.complete('Once', { maxTokens: 5, temperature: 0 });
  await model.dispose();
  await trace.end();
  const { equal } = await replayRecording(parseRecording(lines.join('\n'), 'recording'), {
    file: 'recording',
    load: (options) => load(folder, { ...options, threads: 1 }),
  });
  return { trace: await new Blob(pieces).text(), text, threads: model.threads, equal };
}

/** Tokens per second, the best of several texts. */
async function speed(threads: number | undefined): Promise<number> {
  const { load } = await import('../../src/browser.ts');
  const model = await load(folder, { threads });
  const rates: number[] = [];
  for (let n = 0; n < 5; n++) {
    for await (const event of model.generate('Once', { ignoreEos: true, maxTokens: 200, temperature: 0 }))
      if (event.type === 'done') rates.push(200_000 / event.timings.decodeMs);
  }
  await model.dispose();
  return Math.max(...rates);
}

export async function run(): Promise<unknown> {
  pretend();
  const asked = (parameters.get('jobs') ?? 'folder').split(',');
  const results: Record<string, unknown> = {};
  for (const name of asked) {
    try {
      if (name === 'stopped') results[name] = await stopped();
      else if (name === 'turns') results[name] = await turns();
      else if (name === 'traced') results[name] = await traced();
      else if (name === 'memory') results[name] = await memory();
      else if (name.startsWith('speed')) results[name] = await speed(Number(name.slice(5)) || undefined);
      else {
        const { load } = await import('../../src/browser.ts');
        const [source, options] = await jobs[name]!();
        results[name] = await outcomeOf((onWarning) => load(source, { ...options, onWarning }));
      }
    } catch (error) {
      results[name] = { error: String((error as Error)?.stack ?? error) };
    }
  }
  return results;
}
