/**
 * Runs the tests: `node tools/run-tests.ts [FILE...]`. Sets a compile cache for the hundreds of processes that are
 * started, so that Node does not compile the sources in each of them. Entries are found by the hash of the source.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const files = process.argv.length > 2 ? process.argv.slice(2) : ['test/**/*.test.ts'];
const compiled = mkdtempSync(path.join(tmpdir(), 'lanewise-compiled-'));
try {
  const { status } = spawnSync(process.execPath, ['--test', '--test-concurrency=2', ...files], {
    cwd: path.join(import.meta.dirname, '..'),
    stdio: 'inherit',
    env: { ...process.env, NODE_COMPILE_CACHE: compiled },
  });
  process.exitCode = status ?? 1;
} finally {
  rmSync(compiled, { recursive: true, force: true });
}
