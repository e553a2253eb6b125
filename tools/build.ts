/**
 * Builds dist, which is published. The old folder is removed first, as it may have files whose sources were deleted.
 *
 *   node tools/build.ts [FOLDER]    default: dist
 */
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { finishBuild } from './finish-build.ts';

const root = path.join(import.meta.dirname, '..');
const folder = path.resolve(process.argv[2] ?? path.join(root, 'dist'));
const tsc = path.join(root, 'node_modules/typescript/bin/tsc');

rmSync(folder, { recursive: true, force: true });
execFileSync(process.execPath, [tsc, '-p', path.join(root, 'tsconfig.build.json'), '--outDir', folder], {
  stdio: 'inherit',
});
finishBuild(folder);
