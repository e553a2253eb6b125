/** In the page: generates on the main thread and in a worker, and posts what came out. */
import { run } from './run.ts';

const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
const inWorker = new Promise<unknown>((resolve) => {
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message, filename, lineno }) => resolve({ error: `${message} (${filename}:${lineno})` });
});
const results = { main: await run(), worker: await inWorker };
await fetch('/result', { method: 'POST', body: JSON.stringify(results) });
