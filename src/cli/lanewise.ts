#!/usr/bin/env node
/**
 * Entry of the command `lanewise`. From Node 22.8 on, compiled JavaScript is cached on disk.
 */
import '../disposal.ts';
import module from 'node:module';

module.enableCompileCache?.();
await import('./main.ts');
