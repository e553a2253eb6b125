#!/usr/bin/env node
/**
 * What the command `lanewise` starts: the command line, whose JavaScript Node compiles once and keeps, where it can
 * (22.8).
 */
import '../disposal.ts';
import module from 'node:module';

module.enableCompileCache?.();
await import('./main.ts');
