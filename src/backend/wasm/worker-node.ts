/** Entry file of a worker thread under Node. */
import { readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { serve, type ThreadSetup } from './thread.ts';
import type { ReadFile } from './thread-load.ts';

const read: ReadFile = (descriptor, position, target) => readSync(descriptor, target, 0, target.length, position);

parentPort!.once('message', (setup: ThreadSetup) => serve(setup, () => parentPort!.postMessage('ready'), read));
