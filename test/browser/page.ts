/** Script of the page: runs the jobs on the main thread, then in a worker, and posts the results. */
import { run } from './run.ts';

async function inWorker(): Promise<unknown> {
  // With the page's own parameters.
  const address = new URL('./worker.ts', import.meta.url);
  address.search = location.search;
  const worker = new Worker(address, { type: 'module' });
  return new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message, filename, lineno }) => resolve({ error: `${message} (${filename}:${lineno})` });
  });
}

const main = await run();
await fetch('/result', { method: 'POST', body: JSON.stringify({ main, worker: await inWorker() }) });
