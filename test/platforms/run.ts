/**
 * The package on ARM64 and on Windows, both by emulation: `npm run test:platforms -- [--only arm64|windows] [--json]`.
 * Prints a row for each check; exit code 1 if one fails. Platforms that cannot be emulated are reported as skipped.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { arm64, buildPackage, type Machine, noEmulator, root, windows } from './machines.ts';
import { windowsSteps } from './windows.ts';

export interface Row {
  readonly platform: string;
  readonly what: string;
  readonly result: 'right' | 'wrong' | 'skipped';
  readonly seconds: number;
  readonly note: string;
}

type Hashes = Record<string, string>;

const { values } = parseArgs({ options: { only: { type: 'string' }, json: { type: 'boolean', default: false } } });
if (values.only !== undefined && !['arm64', 'windows'].includes(values.only))
  throw new Error(`--only: expected arm64 or windows, found ${values.only}`);

const rows: Row[] = [];
const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-platforms-'));
const built = buildPackage();
const golden = path.join(root, 'test/golden');
const bits = path.join(root, 'test/platforms/bits.mjs');

/** Records the result of a check: undefined if it passed, else the error. */
async function row(platform: string, what: string, step: () => Promise<string | undefined>): Promise<void> {
  const start = performance.now();
  const note = await step().catch((error: unknown) => (error instanceof Error ? error.message : String(error)));
  const seconds = (performance.now() - start) / 1000;
  add({ platform, what, result: note === undefined ? 'right' : 'wrong', seconds, note: note ?? '' });
}

function add(found: Row): void {
  rows.push(found);
  const { platform, what, result, seconds, note } = found;
  console.error(`${platform}: ${what}: ${result} (${seconds.toFixed(0)} s)${note && `: ${note}`}`);
}

/** The same bits as here, without a warning. */
async function sameBits(machine: Machine, expected: Hashes, cases?: readonly string[]): Promise<string | undefined> {
  const names = cases ?? Object.keys(expected);
  const places = [bits, path.join(built, 'dist'), golden].map((file) => machine.path(file));
  const { code, out, err } = await machine.run([...places, names.join(';')]);
  if (code !== 0 || err !== '') return `exit code ${code}, stderr: ${err.trim()}`;
  const { hashes, warnings } = JSON.parse(out) as { hashes: Hashes; warnings: string[] };
  if (warnings.length > 0) return `warned: ${warnings.join('; ')}`;
  const wrong = names.filter((name) => hashes[name] !== expected[name]);
  return wrong.length === 0 ? undefined : `other bits: ${wrong.join(', ')}`;
}

async function onArm64(expected: Hashes): Promise<void> {
  for (const [cpu, cases] of [
    ['max', undefined],
    ['cortex-a53', ['stories q8_0', 'stories q4_0', 'stories iq4_nl', 'stories q4_k', 'stories q6_k']],
  ] as const) {
    const machine = arm64(cpu, folder);
    const platform = `arm64 ${cpu}`;
    if (!machine) add(skipped(platform, noEmulator.arm64));
    else {
      await row(platform, 'self-check, then tokens and log-probabilities', () => sameBits(machine, expected, cases));
      if (cpu === 'max') await row(platform, 'the command line, nothing else on stderr', () => quietCommand(machine));
    }
  }
}

async function quietCommand(machine: Machine): Promise<string | undefined> {
  const args = ['generate', '--prompt', 'Once upon a time', '--temperature', '0', '--max-tokens', '3'];
  const { code, out, err } = await machine.run([machine.path(path.join(built, 'dist/cli/lanewise.js')), ...args]);
  return code === 0 && err === '' && out.startsWith(', there') ? undefined : JSON.stringify({ code, out, err });
}

async function onWindows(expected: Hashes): Promise<void> {
  const machine = await windows(folder);
  if (!machine) return add(skipped('windows', noEmulator.windows));
  await row('windows', 'self-check, then tokens and log-probabilities', () => sameBits(machine, expected));
  await row('windows', 'the command line, nothing else on stderr', () => quietCommand(machine));
  for (const [what, step] of windowsSteps(machine, { folder, built })) await row('windows', what, step);
}

const skipped = (platform: string, missing: string): Row => ({
  platform,
  what: 'everything',
  result: 'skipped',
  seconds: 0,
  note: `no emulator here: install ${missing}`,
});

try {
  const here = execFileSync(process.execPath, [bits, path.join(built, 'dist'), golden], { encoding: 'utf8' });
  const { hashes } = JSON.parse(here) as { hashes: Hashes };
  // Each emulator keeps about one core busy.
  await Promise.all([
    values.only === 'windows' ? undefined : onArm64(hashes),
    values.only === 'arm64' ? undefined : onWindows(hashes),
  ]);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (values.json) console.log(JSON.stringify(rows, null, 2));
else for (const { platform, what, result, note } of rows) console.log([platform, what, result, note].join(' | '));
process.exitCode = rows.some(({ result }) => result === 'wrong') ? 1 : 0;
