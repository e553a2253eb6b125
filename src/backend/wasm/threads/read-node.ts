/** How threads read files under Node. */
import { readSync } from 'node:fs';
import type { ReadFile } from './thread-setup.ts';

export const read: ReadFile = (descriptor, position, target) =>
  readSync(descriptor, target, 0, target.length, position);
