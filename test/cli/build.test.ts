/** The package as published: compiled to JavaScript, with the code of its threads. */
import assert from 'node:assert/strict';
import { execFileSync, execSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The system's Node if it is 20 or newer, else the one that runs the test. */
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

interface Packed {
  readonly size: number;
  readonly files: readonly { readonly path: string }[];
}

/** The files of a folder that npm would publish. */
function packed(folder: string): Packed {
  const command = 'npm pack --dry-run --json --ignore-scripts --loglevel=error';
  return JSON.parse(execSync(command, { cwd: folder, encoding: 'utf8' }))[0];
}

const model = path.join(root, 'models/lanewise-stories');
const packedModel = packed(model);

/**
 * The package in a folder of its own, compiled once, with its dependencies and the embedded model as they are
 * published.
 */
const built = mkdtempSync(path.join(tmpdir(), 'lanewise-build-'));
after(() => rmSync(built, { recursive: true, force: true }));
execFileSync(process.execPath, [path.join(root, 'tools/build.ts'), path.join(built, 'dist')]);
cpSync(path.join(root, 'package.json'), path.join(built, 'package.json'));
const modules = path.join(built, 'node_modules');
const installedModel = path.join(modules, 'lanewise-stories');
mkdirSync(modules);
for (const name of readdirSync(path.join(root, 'node_modules')))
  if (!name.startsWith('.') && !name.startsWith('lanewise'))
    symlinkSync(path.join(root, 'node_modules', name), path.join(modules, name), 'junction');
for (const file of packedModel.files) cpSync(path.join(model, file.path), path.join(installedModel, file.path));

/** A consumer's folder: the package knows itself by its name below its own folder. */
function consumerFolder(name: string): string {
  const folder = path.join(built, name);
  mkdirSync(folder);
  return folder;
}

const tsc = path.join(root, 'node_modules/typescript/bin/tsc');

test('the compiled package generates, tokenizes and converts with the Node of the system', () => {
  const lanewise = (...args: string[]): string =>
    execFileSync(systemNode(), [path.join(built, 'dist/cli/lanewise.js'), ...args], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
  const greedy = ['--prompt', 'Once upon a time', '--temperature', '0', '--max-tokens', '8'];
  const text = lanewise('generate', ...greedy, '--threads', '2', '--quantize', 'none');
  assert.ok(text.length > 10);
  assert.equal(lanewise('generate', ...greedy, '--threads', '1', '--quantize', 'none'), text);
  assert.equal(lanewise('tokenize', 'encode', '--text', 'Once upon a time').trim(), '559,552,263,423');
  const file = path.join(built, 'stories.gguf');
  lanewise('quantize', installedModel, file, '--to', 'f16');
  assert.equal(lanewise('generate', file, ...greedy), text);
});

test('an engine of the compiled package has a thread of its own', () => {
  const program = path.join(consumerFolder('hosted'), 'program.mjs');
  writeFileSync(
    program,
    `
    import { load } from 'lanewise';
    const warnings = [];
    const options = { threads: 2, onWarning: (text) => warnings.push(text) };
    const [hosted, inline] = await Promise.all([load(undefined, options), load(undefined, { ...options, inline: true })]);
    const answer = async (model) => (await model.complete('Once upon a time', { temperature: 0, maxTokens: 8 })).text;
    const texts = await Promise.all([answer(hosted), answer(inline)]);
    console.log(JSON.stringify([texts[0] === texts[1], hosted.threads, hosted.tokenizer.encode(texts[0]).length, warnings]));
    await inline.dispose();
    `,
  );
  const said = execFileSync(systemNode(), [program], { encoding: 'utf8' });
  assert.deepEqual(JSON.parse(said), [true, 2, 8, []]);
});

test('the package is small and has no model; the package of the model has what it needs, with its card', () => {
  const { size, files } = packed(built);
  assert.ok(size < 1.5e6, `${size} bytes`);
  assert.ok(files.some((file) => file.path === 'dist/node.js'));
  assert.deepEqual(
    files.filter((file) => !/^(?:dist\/.*|package\.json)$/.test(file.path)),
    [],
  );
  assert.deepEqual(packedModel.files.map((file) => file.path).sort(), [
    'README.md',
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'package.json',
    'special_tokens_map.json',
    'tokenizer.json',
    'tokenizer_config.json',
  ]);
});

/** A program that uses the types of the package by name. */
const consumer = `
import type {
  BatchResult, ByteSource, FileFolder, KvStorage, LoadTimes, LogitsSummary, ModelKind, PhaseTimes, Plan, RenderedChat,
  SamplingOptions, SequenceHandle, StepRows, ModelSizes, StepLogits, TokenChoice, Usage, WasmHost,
} from 'lanewise';
import type { EmbedInput, ErrorCode, GenerateResult, Generation, Message, Tool, ToolCall } from 'lanewise';
import type { KvStorage as InBrowsers, WebModelSource } from 'lanewise/browser';
import settings from 'lanewise/package.json' with { type: 'json' };
export type All = [
  BatchResult, ByteSource, FileFolder, KvStorage, LoadTimes, LogitsSummary, ModelKind, PhaseTimes, Plan, RenderedChat,
  SamplingOptions, SequenceHandle, StepRows, ModelSizes, StepLogits, TokenChoice, Usage, WasmHost, InBrowsers, EmbedInput,
  WebModelSource, ErrorCode, Message, ToolCall, Tool, GenerateResult, Generation,
];
console.log(settings.name);
`;

test('a program can name the types of the package, and read its package.json', () => {
  const folder = consumerFolder('names');
  const file = path.join(folder, 'consumer.mts');
  writeFileSync(file, consumer);
  const options = ['--strict', '--module', 'nodenext', '--target', 'esnext', '--resolveJsonModule', '--types', 'node'];
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...options, file], { cwd: folder, encoding: 'utf8' });
  assert.equal(stdout, '');
  assert.equal(status, 0);
  const compiled = path.join(folder, 'consumer.mjs');
  assert.equal(execFileSync(process.execPath, [compiled], { encoding: 'utf8' }), 'lanewise\n');
});

test('a program without types of browsers and of Node can use the declarations', () => {
  const folder = consumerFolder('bare');
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
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' });
  assert.deepEqual([status, stdout], [0, '']);
});

test('threads of the package convert from their source text, and the caller where none may start', () => {
  const program = `
    import { ThreadedConverter } from ${JSON.stringify(path.join(built, 'dist/convert/convert-node.js'))};
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

test('without the package of the embedded model, the demo says in one line what to do', (t) => {
  const away = path.join(built, 'away');
  renameSync(installedModel, away);
  t.after(() => renameSync(away, installedModel));
  const command = path.join(built, 'dist/cli/lanewise.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'demo'], { cwd: built, encoding: 'utf8' });
  assert.deepEqual([status, stdout], [1, '']);
  assert.match(
    stderr,
    /^error: [^\n]*lanewise-stories, which is not installed; run npm install lanewise-stories, or [^\n]*\n$/,
  );
});
