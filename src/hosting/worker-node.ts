/** Entry file of the thread of an engine under Node. */
import { join } from 'node:path';
import { parentPort } from 'node:worker_threads';
import { locatePath } from './locate-node.ts';
import type { CallerMessage } from './messages.ts';
import { serveEngine } from './serve-engine.ts';

const port = parentPort!;
serveEngine(
  {
    post: (messages, transfer) => port.postMessage(messages, [...transfer]),
    listen: (onMessage) => void port.on('message', (message: CallerMessage) => onMessage(message)),
  },
  {
    async open(path, signal) {
      const source = await locatePath(path as string, signal);
      const { folder, file } = source;
      return { source, again: file === undefined ? folder.name : join(folder.name, file) };
    },
  },
);
