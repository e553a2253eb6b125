/** Compiles a module with V8's flags changed, and says so. */
import { parentPort } from 'node:worker_threads';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { Module } from '../../src/wasm/assembler.ts';

const module = new Module();
module.func('nothing', []);
parentPort!.postMessage('ready');
nodeHost().compile(module.encode({ maximum: 1, shared: false }), { wide: false });
parentPort!.postMessage('compiled');
