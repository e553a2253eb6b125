/** Entry file of a worker thread in a browser. */
import { serve } from './thread.ts';
import type { ReadFile, ThreadSetup } from './thread-setup.ts';

/** Files of a page are read by its own thread. */
const none: ReadFile = () => 0;

globalThis.onmessage = ({ data }: MessageEvent<ThreadSetup>) =>
  serve(data, () => globalThis.postMessage('ready'), none);
