/** Entry file of a worker thread under Node. */
import { parentPort } from 'node:worker_threads';
import { read } from './read-node.ts';
import { serve, type ThreadSetup } from './thread.ts';

parentPort!.once('message', (setup: ThreadSetup) => serve(setup, () => parentPort!.postMessage('ready'), read));
