import { run } from './run.ts';

globalThis.postMessage(await run());
