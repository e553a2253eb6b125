/** Entry file of a worker thread under Node. */
import { parentPort } from 'node:worker_threads';
import { read } from './read-node.ts';
import { serve } from './thread.ts';
import type { ThreadSetup } from './thread-setup.ts';

parentPort!.once('message', (setup: ThreadSetup) => serve(setup, () => parentPort!.postMessage('ready'), read));
