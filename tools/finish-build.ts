/**
 * Completes the compiled package: the code of threads as source texts in built.js, so that bundles and archives need no
 * further files, declarations that every supported TypeScript can read (see `portableTypes`), and chart.js for reports.
 *
 *   node tools/finish-build.ts [FOLDER]    default: dist
 */
import { copyFileSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants } from 'node:zlib';
import { kernelHash } from '../src/backend/wasm/threads/kernel-hash-node.ts';

/** Entry file of each thread. */
const threads = { kernels: 'backend/wasm/threads/worker-node.js', converter: 'convert/convert-worker-node.js' };
const engine = 'hosting/worker-node.js';
const builtFile = 'backend/wasm/threads/built.js';
const globals = path.join(import.meta.dirname, 'globals.d.ts');

export function finishBuild(folder: string): void {
  const threadSources = Object.entries(threads).map(([role, file]) => [role, threadSource(folder, file)]);
  // Most of the library's code once more. It has this file's content from the thread that starts it.
  const source = threadSource(folder, engine, new Map([[builtFile, BUILT_OF_CALLER]]));
  const packed = brotliCompressSync(source, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: source.length } });
  const built = {
    threads: Object.fromEntries(threadSources),
    engine: packed.toString('base64'),
    kernelHash: kernelHash(folder),
  };
  writeFileSync(
    path.join(folder, builtFile),
    `/** Written by tools/finish-build.ts. */\nexport const built = ${JSON.stringify(built, undefined, 1)};\n`,
  );
  copyFileSync(globals, path.join(folder, 'globals.d.ts'));
  const library = fileURLToPath(import.meta.resolve('chart.js'));
  copyFileSync(path.join(library, '../chart.umd.min.js'), path.join(folder, 'report/chart.umd.min.js'));
  copyFileSync(path.join(library, '../../LICENSE.md'), path.join(folder, 'report/chart.umd.min.js.LICENSE.md'));
  for (const file of globSync('**/*.d.ts', { cwd: folder })) {
    if (file === 'globals.d.ts') continue;
    const at = path.join(folder, file);
    writeFileSync(at, portableTypes(readFileSync(at, 'utf8'), path.relative(path.dirname(at), folder)));
  }
}

const BUILT_OF_CALLER = "import { workerData } from 'node:worker_threads';\nexport const built = workerData;\n";

interface Module {
  readonly file: string;
  readonly body: string;
}

/**
 * Bundles a module and its imports to a script, each module in a function. Supports the import and export statements
 * that the compiler writes: by name, at the first column. @throws Error for other statements
 * @param replaced texts of modules that replace those in the folder
 */
export function threadSource(folder: string, entry: string, replaced: ReadonlyMap<string, string> = new Map()): string {
  const modules: Module[] = [];
  const names = new Map<string, string>();
  const platform = new Set<string>();
  const add = (file: string): string => {
    const known = names.get(file);
    if (known === '') throw new Error(`${file} imports itself by a circle`);
    if (known !== undefined) return known;
    names.set(file, '');
    const exported: string[] = [];
    const module = (target: string): string => {
      if (!target.startsWith('node:')) return add(path.posix.join(path.posix.dirname(file), target));
      platform.add(target);
      return `platform[${JSON.stringify(target)}]`;
    };
    const renamed = (list: string): string => list.replace(/(\w+)\s+as\s+(\w+)/g, '$1: $2');
    const text = replaced.get(file) ?? readFileSync(path.join(folder, file), 'utf8');
    const body = text
      // Comments on separate lines.
      .replace(/^ *\/\*\*.*?\*\/\n/gms, '')
      .replace(/^ *\/\/.*\n/gm, '')
      .replace(/^import ['"]([^'"]+)['"];$/gm, (_, target: string) => `${module(target)};`)
      .replace(/^import (\{[^}]*\}|\* as \w+|\w+) from ['"]([^'"]+)['"];$/gm, (_, what: string, target: string) => {
        const from = module(target);
        if (what.startsWith('{')) return `const ${renamed(what)} = ${from};`;
        return what.startsWith('*')
          ? `const ${what.slice(5)} = ${from};`
          : `const ${what} = ${from}.default ?? ${from};`;
      })
      .replace(/^export \{([^}]+)\} from ['"]([^'"]+)['"];$/gm, (_, list: string, target: string) => {
        const from = module(target);
        for (const item of list.split(',')) {
          const [name, shown = name] = item.trim().split(/\s+as\s+/);
          if (name) exported.push(`${shown}: ${from}.${name}`);
        }
        return '';
      })
      .replace(/^export (async function\*?|function\*?|class|const|let) (\w+)/gm, (_, kind: string, name: string) => {
        exported.push(name);
        return `${kind} ${name}`;
      })
      .replace(/^export \{([\w\s,]*)\};$/gm, (_, list: string) => {
        exported.push(...list.split(',').flatMap((name) => name.trim() || []));
        return '';
      })
      // A script has none.
      .replaceAll('import.meta.url', 'undefined');
    const rest = /^(?:import|export)\b.*$/m.exec(body)?.[0];
    if (rest !== undefined) throw new Error(`${file}: a statement that threads cannot have: ${rest}`);
    const name = `m${modules.length}`;
    modules.push({ file, body: `const ${name} = (() => {\n${body}\nreturn { ${exported.join(', ')} };\n})();` });
    names.set(file, name);
    return name;
  };
  add(entry);
  return [
    '(async () => {',
    // Node runs the text of a thread as a script; other runtimes may run it as a module.
    "const find = typeof require === 'function' ? require : (name) => import(name);",
    'const platform = {};',
    `for (const name of ${JSON.stringify([...platform])}) platform[name] = await find(name);`,
    ...modules.map(({ body }) => body),
    // Throws the error outside the promise, so that it ends the thread instead of being an unhandled rejection.
    '})().catch((error) => setTimeout(() => { throw error; }));',
    '',
  ].join('\n');
}

/**
 * Rewrites declarations for TypeScript 5.4 and newer, with or without the types of browsers and Node: typed arrays
 * before 5.7 have no type parameter; optional members allow undefined, also with `exactOptionalPropertyTypes`; global
 * types come from globals.d.ts if nothing else declares them; without @types/node, types of Node's modules are any.
 * @param up path from the file's folder to the package's folder
 */
export function portableTypes(text: string, up: string): string {
  const portable = text
    .replace(/^import .* from 'node:.*$/gm, '// @ts-ignore: any where Node has no types\n$&')
    .replace(/(?<=[:<|(]\s*)Buffer(?:<ArrayBuffer(?:Like)?>)?(?=[;,>|)[])/g, 'Uint8Array')
    .replace(/\b(\w+Array)<ArrayBuffer>/g, 'ReturnType<typeof $1.of>')
    .replace(/\b(\w+Array)<ArrayBufferLike>/g, '$1')
    .replace(/\b(?:Map|Set|Array)Iterator</g, 'IterableIterator<')
    .replace(/^(\s+(?:readonly )?\w+\?: )([^\n{]+);$/gm, (line, member: string, type: string) =>
      /\bundefined$/.test(type) ? line : `${member}${/=>/.test(type) ? `(${type})` : type} | undefined;`,
    );
  return `/// <reference path="${path.posix.join(up.replaceAll('\\', '/') || '.', 'globals.d.ts').replace(/^(?!\.)/, './')}" />\n${portable}`;
}

if (import.meta.main) finishBuild(path.resolve(process.argv[2] ?? 'dist'));
