/** Entry file of a worker thread in a browser. */
import { serve, type ThreadSetup } from './thread.ts';

globalThis.onmessage = ({ data }: MessageEvent<ThreadSetup>) => serve(data, () => globalThis.postMessage('ready'));
