/** The thread of an engine in a checkout: keeps what Node compiles of the sources, which takes most of its start otherwise. */
import * as modules from 'node:module';

// Node 22 has it.
(modules as { enableCompileCache?: () => void }).enableCompileCache?.();
await import('./worker-node.ts');
