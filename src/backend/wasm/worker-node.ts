/** Entry file of a worker thread under Node. */
import { parentPort, workerData } from 'node:worker_threads';
import { serve, type ThreadSetup } from './thread.ts';

serve(workerData as ThreadSetup, () => parentPort!.postMessage('ready'));
