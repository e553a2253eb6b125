/** Starts the thread of an engine under Node. */
import type { Worker } from 'node:worker_threads';
import { startThread } from '../backend/wasm/threads/start-node.ts';
import type { EngineMessages, EngineThread } from './messages.ts';

/** @throws system errors; ERR_ACCESS_DENIED under Node's permission model */
export function startEngineThread(): EngineThread {
  return threadOf(startThread('engine', './worker-checkout', import.meta.url, 'lanewise engine'));
}

export function threadOf(worker: Worker): EngineThread {
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    listen: (onMessages) => void worker.on('message', (messages: EngineMessages) => onMessages(messages)),
    ended: new Promise((resolve) => {
      worker.on('error', (error: NodeJS.ErrnoException) => resolve(reasonOf(error)));
      worker.on('messageerror', (error) => resolve(`a message could not be read (${error.message})`));
      worker.once('exit', (code) => resolve(`it exited with code ${code}`));
    }),
    hold: (on) => (on ? worker.ref() : worker.unref()),
    async terminate() {
      await worker.terminate();
    },
  };
}

function reasonOf(error: NodeJS.ErrnoException): string {
  const [line = ''] = String(error?.message ?? error).split('\n');
  return error?.code === 'ERR_WORKER_OUT_OF_MEMORY' ? `its heap is full (${line})` : line;
}
