/**
 * What the compiler leaves to be done for the package: threads as source texts in built.js, so that bundles and archives need
 * no file beside the code, and declarations that every supported TypeScript reads (see `portableTypes`).
 *
 *   node tools/finish-build.ts [FOLDER]    default: dist
 */
import { createHash } from 'node:crypto';
import { copyFileSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** Entry file of each thread. */
const threads = { kernels: 'backend/wasm/threads/worker-node.js', converter: 'convert/convert-worker-node.js' };
/** Code that decides what kernels do. */
const kernelFolders = ['kernels', 'wasm', 'backend/wasm'];
const globals = path.join(import.meta.dirname, 'globals.d.ts');

export function finishBuild(folder: string): void {
  const threadSources = Object.entries(threads).map(([role, file]) => [role, threadSource(folder, file)]);
  const built = { threads: Object.fromEntries(threadSources), kernelHash: kernelHash(folder) };
  writeFileSync(
    path.join(folder, 'backend/wasm/threads/built.js'),
    `/** Written by tools/finish-build.ts. */\nexport const built = ${JSON.stringify(built, undefined, 1)};\n`,
  );
  copyFileSync(globals, path.join(folder, 'globals.d.ts'));
  for (const file of globSync('**/*.d.ts', { cwd: folder })) {
    if (file === 'globals.d.ts') continue;
    const at = path.join(folder, file);
    writeFileSync(at, portableTypes(readFileSync(at, 'utf8'), path.relative(path.dirname(at), folder)));
  }
}

interface Module {
  readonly file: string;
  readonly body: string;
}

/**
 * A script with the module and all that it imports, each in a function of its own. Knows the statements that the compiler
 * writes: named and namespace imports, named exports at the first column. @throws Error for any other
 */
export function threadSource(folder: string, entry: string): string {
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
    const body = readFileSync(path.join(folder, file), 'utf8')
      .replace(/^\/\*\*.*?\*\/\n/gms, '')
      .replace(/^import (\{[^}]*\}|\* as \w+) from ['"]([^'"]+)['"];$/gm, (_, what: string, target: string) => {
        const from = module(target);
        return what.startsWith('*') ? `const ${what.slice(5)} = ${from};` : `const ${renamed(what)} = ${from};`;
      })
      .replace(/^export (async function\*?|function\*?|class|const|let) (\w+)/gm, (_, kind: string, name: string) => {
        exported.push(name);
        return `${kind} ${name}`;
      })
      .replace(/^export \{\s*\};$/gm, '');
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
    // Threads that run a text are scripts in Node; other runtimes may make modules of them.
    "const find = typeof require === 'function' ? require : (name) => import(name);",
    'const platform = {};',
    `for (const name of ${JSON.stringify([...platform])}) platform[name] = await find(name);`,
    ...modules.map(({ body }) => body),
    // A failure belongs to the thread: it must not be a rejection that nobody handles.
    '})().catch((error) => setTimeout(() => { throw error; }));',
    '',
  ].join('\n');
}

function kernelHash(folder: string): string {
  const hash = createHash('sha256');
  for (const inner of kernelFolders) {
    for (const file of globSync('**/*.js', { cwd: path.join(folder, inner) }).sort()) {
      if (path.basename(file) !== 'built.js') hash.update(readFileSync(path.join(folder, inner, file)));
    }
  }
  return hash.digest('hex').slice(0, 16);
}

/**
 * Declarations for TypeScript 5.4 and newer, with or without types of browsers and of Node:
 * arrays before 5.7 have no type parameter; optional members may be undefined also with `exactOptionalPropertyTypes`, as
 * the sources mean them; global types come from globals.d.ts where nothing else declares them; types of Node's modules are
 * any without @types/node.
 * @param up from the file's folder to the package's
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
