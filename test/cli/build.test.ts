/** The package as it is published: compiled, without a TypeScript file, its threads included. */
import assert from 'node:assert/strict';
import { execFileSync, execSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What a machine has outside of this checkout, where that is Node 20 or newer; else what runs the test. */
function systemNode(): string {
  const outside = (process.env.PATH ?? '').split(path.delimiter).filter((folder) => !folder.includes('node_modules'));
  const { stdout, status } = spawnSync('node', ['--version'], {
    env: { ...process.env, PATH: outside.join(path.delimiter) },
    encoding: 'utf8',
  });
  if (status !== 0 || Number.parseInt(stdout.slice(1), 10) < 20) return process.execPath;
  return execFileSync('node', ['-p', 'process.execPath'], {
    env: { ...process.env, PATH: outside.join(path.delimiter) },
    encoding: 'utf8',
  }).trim();
}

/** The package in a folder of its own. */
function build(t: TestContext): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-build-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  execFileSync(process.execPath, [path.join(root, 'tools/build.ts'), path.join(folder, 'dist')]);
  cpSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
  for (const file of packedModels()) cpSync(path.join(root, file), path.join(folder, file));
  return folder;
}

/** Files of models that come with the package. */
function packedModels(): string[] {
  const pack = 'npm pack --dry-run --json --ignore-scripts --loglevel=error';
  const [{ files }] = JSON.parse(execSync(pack, { cwd: root, encoding: 'utf8' }));
  return files.map((file: { path: string }) => file.path).filter((file: string) => file.startsWith('models/'));
}

const tsc = path.join(root, 'node_modules/typescript/bin/tsc');

test('the compiled package generates, tokenizes and converts with the Node of the system', (t) => {
  const folder = build(t);
  const lanewise = (...args: string[]): string =>
    execFileSync(systemNode(), [path.join(folder, 'dist/cli/lanewise.js'), ...args], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
  const greedy = ['--prompt', 'Once upon a time', '--temperature', '0', '--max-tokens', '8'];
  const text = lanewise('generate', ...greedy, '--threads', '2', '--quantize', 'none');
  assert.ok(text.length > 10);
  assert.equal(lanewise('generate', ...greedy, '--threads', '1', '--quantize', 'none'), text);
  assert.equal(lanewise('tokenize', 'encode', '--text', 'Once upon a time').trim(), '559,552,263,423');
  const file = path.join(folder, 'stories.gguf');
  lanewise('quantize', path.join(folder, 'models/lanewise-stories'), file, '--to', 'f16');
  assert.equal(lanewise('generate', file, ...greedy), text);
});

test('the package has what its model needs, with its card, and nothing else of it', () => {
  assert.deepEqual(
    packedModels()
      .map((file) => path.basename(file))
      .sort(),
    [
      'README.md',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ],
  );
});

/** A user's program that names the types behind the functions. */
const consumer = `
import type {
  BatchResult, ByteSource, FileFolder, KvStorage, LoadTimes, LogitsSummary, ModelKind, Phases, Plan, Rendered,
  SamplingOptions, Sequence, SequenceRows, Sizes, StepLogits, Text, TokenChoice, Usage, WasmHost,
} from 'lanewise';
import type { KvStorage as InBrowsers } from 'lanewise/browser';
import settings from 'lanewise/package.json' with { type: 'json' };
export type All = [
  BatchResult, ByteSource, FileFolder, KvStorage, LoadTimes, LogitsSummary, ModelKind, Phases, Plan, Rendered,
  SamplingOptions, Sequence, SequenceRows, Sizes, StepLogits, Text, TokenChoice, Usage, WasmHost, InBrowsers,
];
console.log(settings.name);
`;

test('a program can name the types of the package, and read its package.json', (t) => {
  const folder = build(t);
  const file = path.join(folder, 'consumer.mts');
  writeFileSync(file, consumer);
  const options = ['--strict', '--module', 'nodenext', '--target', 'esnext', '--resolveJsonModule', '--types', 'node'];
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...options, file], { cwd: folder, encoding: 'utf8' });
  assert.equal(stdout, '');
  assert.equal(status, 0);
  const compiled = path.join(folder, 'consumer.mjs');
  assert.equal(execFileSync(process.execPath, [compiled], { encoding: 'utf8' }), 'lanewise\n');
});

test('a program without types of browsers and of Node can use the declarations', (t) => {
  const folder = build(t);
  writeFileSync(
    path.join(folder, 'bare.mts'),
    "import { load, type LoadOptions } from 'lanewise';\nimport 'lanewise/browser';\n" +
      'const options: LoadOptions = { threads: undefined };\n' +
      'export const text = async () => (await (await load(undefined, options)).generateBatch([""]))[0]?.finishReason;\n',
  );
  const compilerOptions = {
    ...{ strict: true, skipLibCheck: false, exactOptionalPropertyTypes: true, noEmit: true, types: [] },
    ...{ module: 'nodenext', target: 'es2022', lib: ['es2022'] },
  };
  writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['bare.mts'] }));
  const { stdout } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' });
  assert.equal(stdout, '');
});

test('threads of the package convert from their source text, and the caller where none may start', (t) => {
  const folder = build(t);
  const program = `
    import { ThreadedConverter } from ${JSON.stringify(path.join(folder, 'dist/convert/convert-node.js'))};
    const threads = new ThreadedConverter();
    const piece = () => ({ from: 'f32', to: 'f16', bytes: new Uint8Array(128), plus: 1, metrics: false });
    const done = await Promise.all(Array.from({ length: 5 }, () => threads.convert(piece())));
    console.log(JSON.stringify([done.map(({ bytes }) => bytes.length), new Set(done[4].bytes).size, threads.warnings.length]));
    await threads.close();
  `;
  const run = (...flags: string[]): unknown =>
    JSON.parse(execFileSync(process.execPath, [...flags, '--input-type=module', '-e', program], { encoding: 'utf8' }));
  assert.deepEqual(run(), [[64, 64, 64, 64, 64], 2, 0]);
  assert.deepEqual(run('--permission', '--allow-fs-read=*'), [[64, 64, 64, 64, 64], 2, 1]);
});
