/** A worker of the pool that ends when it is woken for the first time. */
import { parentPort } from 'node:worker_threads';
import { sharedWords, viewSharedWords } from '../../src/backend/wasm/memory/shared-words.ts';
import { openLifeDescriptor } from '../../src/backend/wasm/threads/life-node.ts';
import type { ThreadSetup } from '../../src/backend/wasm/threads/thread-setup.ts';

parentPort!.once('message', (setup: ThreadSetup) => {
  const words = viewSharedWords(setup);
  const epoch = Atomics.load(words, sharedWords.epoch >> 2);
  parentPort!.postMessage(openLifeDescriptor());
  Atomics.wait(words, sharedWords.epoch >> 2, epoch);
  process.exit();
});
