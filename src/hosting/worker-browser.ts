/** Entry file of the thread of an engine in a browser. */
import { browserHost } from '../backend/wasm/threads/host-browser.ts';
import type { CallerMessage } from './messages.ts';
import { serveEngine } from './serve-engine.ts';
import { findFiles, otherModel, type WebModelSource, type WebSourceOptions } from './web-source.ts';

const thread = globalThis as unknown as {
  onmessage: (event: MessageEvent<CallerMessage>) => void;
  postMessage(message: unknown, transfer: readonly ArrayBuffer[]): void;
};

serveEngine(
  {
    post: (messages, transfer) => thread.postMessage(messages, transfer),
    listen(onMessage) {
      thread.onmessage = ({ data }) => onMessage(data);
    },
  },
  {
    async open(given, signal) {
      const [place, options] = given as readonly [WebModelSource, WebSourceOptions];
      const { folder, file, explain } = await findFiles(place, { ...options, signal });
      const source = { folder, file, host: browserHost(), other: otherModel(options, signal) };
      return { source, again: given, explain };
    },
  },
);
