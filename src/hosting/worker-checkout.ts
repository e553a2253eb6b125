/**
 * Entry file of the thread of an engine in a checkout. Uses Node's compile cache: compiling the sources takes most of
 * the start.
 */
import * as modules from 'node:module';

// Node 22 has it.
(modules as { enableCompileCache?: () => void }).enableCompileCache?.();
await import('./worker-node.ts');
