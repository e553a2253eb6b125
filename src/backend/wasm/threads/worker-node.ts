/** Entry file of a worker thread under Node. */
import { parentPort } from 'node:worker_threads';
import { openLifeDescriptor } from './life-node.ts';
import { read } from './read-node.ts';
import { serve } from './thread.ts';
import type { ThreadSetup } from './thread-setup.ts';

const port = parentPort!;
port.once('message', (setup: ThreadSetup) => serve(setup, () => port.postMessage(openLifeDescriptor()), read));
