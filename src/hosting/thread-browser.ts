/** Starts the thread of an engine in a browser. */
import type { EngineMessages, EngineThread } from './messages.ts';

/** @throws if the page may not start workers */
export function startEngineThread(): EngineThread {
  // Bundlers recognize this form; the file has the name of the built package.
  const worker = new Worker(new URL('./worker-browser.js', import.meta.url), {
    type: 'module',
    name: 'lanewise engine',
  });
  return {
    post: (message, transfer = []) => worker.postMessage(message, [...transfer]),
    listen(onMessages) {
      worker.onmessage = ({ data }: MessageEvent<EngineMessages>) => onMessages(data);
    },
    ended: new Promise((resolve) => {
      worker.onerror = ({ message, filename }) => resolve(message || `${filename || 'its script'} could not be loaded`);
      worker.onmessageerror = () => resolve('a message could not be read');
    }),
    hold: () => {},
    async terminate() {
      worker.terminate();
    },
  };
}
