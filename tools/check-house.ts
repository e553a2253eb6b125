/**
 * Checks the structure of the code: imports between rooms, use of the platform, length of files, reasons for
 * dependencies. Run by `npm run check`; the rules are in house-rules.ts.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { checkDependencies, checkLinks } from './check-architecture.ts';
import { circlesOf } from './circles.ts';
import { type Rules, rules } from './house-rules.ts';

export interface Report {
  readonly problems: readonly string[];
  /** Lines and files per room, for people. */
  readonly summary: string;
}

interface Source {
  /** Relative to the root, with forward slashes. */
  readonly file: string;
  readonly text: string;
  readonly lines: number;
}

const folders = ['src', 'test', 'bench', 'tools', 'examples'];
const skipped = new Set(['node_modules', 'golden', 'dist']);

export function checkHouse(
  root: string,
  { rooms, shared, platform, maxLines, maxArchitectureLines, long }: Rules,
): Report {
  const sources = folders.flatMap((folder) => readSources(root, folder));
  const problems = [
    ...sources.flatMap((source) => (source.file.startsWith('src/') ? arrowsOf(source) : [])),
    ...fileCircles(sources),
    ...roomCircles(),
    ...sources.flatMap(lengthOf),
    ...Object.keys(long).flatMap((file) => (isLong(file) ? [] : [`${file} is listed as long, but is not`])),
    ...checkDependencies(root),
    ...checkLinks(root),
  ];
  return { problems, summary: summarize(sources) };

  function arrowsOf({ file, text }: Source): string[] {
    const inside = file.slice('src/'.length);
    const room = roomOf(inside);
    if (room !== 'surface' && room !== 'shared' && !Object.hasOwn(rooms, room))
      return [`${file}: no such room: ${room}`];
    return importsOf(text).flatMap(({ target, typeOnly }) => {
      const refused = refusal(inside, room, target, typeOnly);
      return refused === undefined ? [] : [`${file} imports ${target}: ${refused}`];
    });
  }

  function refusal(inside: string, room: string, target: string, typeOnly: boolean): string | undefined {
    const portable = !usesPlatform(inside);
    if (target.startsWith('node:')) return portable ? 'the platform belongs into an adapter' : undefined;
    if (!target.startsWith('.')) {
      if (rooms[room]?.packages?.includes(target)) return undefined;
      return `packages of ${room}: ${rooms[room]?.packages?.join(', ') ?? 'none'}`;
    }
    const imported = path.posix.normalize(path.posix.join(path.posix.dirname(inside), target));
    if (imported.startsWith('..')) return 'it is outside src';
    if (portable && !typeOnly && usesPlatform(imported)) return 'it uses the platform';
    const to = roomOf(imported);
    if (to === room || to === 'shared' || room === 'surface') return undefined;
    const allowed = rooms[room]?.imports ?? [];
    if (allowed.includes(to) || (typeOnly && allowed.includes(`${to} (types)`))) return undefined;
    return `${room} may import ${allowed.join(', ') || 'nothing'}`;
  }

  /**
   * Circles of imports between files. Imports of types count too: to read one file of a circle you have to read them
   * all.
   */
  function fileCircles(all: readonly Source[]): string[] {
    const imports = all.map(({ file, text }): [string, string[]] => [
      file,
      importsOf(text).flatMap(({ target }) =>
        target.startsWith('.') ? [path.posix.join(path.posix.dirname(file), target)] : [],
      ),
    ]);
    return circlesOf(new Map(imports)).map((circle) => `import circle: ${circle.join(' -> ')}`);
  }

  function roomCircles(): string[] {
    const imports = Object.entries(rooms).map(([room, { imports }]): [string, string[]] => [
      room,
      imports.map((name) => name.replace(/ \(types\)$/, '')),
    ]);
    return circlesOf(new Map(imports)).map((circle) => `rooms in a circle: ${circle.join(' -> ')}`);
  }

  function usesPlatform(inside: string): boolean {
    return platform.some((place) => (place.endsWith('/') ? inside.startsWith(place) : inside === place));
  }

  function roomOf(inside: string): string {
    if (shared.includes(inside)) return 'shared';
    const folders = inside.split('/').slice(0, -1);
    if (folders.length === 0) return 'surface';
    for (let depth = folders.length; depth > 1; depth--) {
      const nested = folders.slice(0, depth).join('/');
      if (Object.hasOwn(rooms, nested)) return nested;
    }
    return folders[0]!;
  }

  function lengthOf({ file, lines }: Source): string[] {
    const limit = limitOf(file);
    return lines <= limit || Object.hasOwn(long, file) ? [] : [`${file} has ${lines} lines, ${limit} are allowed`];
  }

  function isLong(file: string): boolean {
    return sources.some((source) => source.file === file && source.lines > limitOf(file));
  }

  function limitOf(file: string): number {
    return file.startsWith('src/models/') ? maxArchitectureLines : maxLines;
  }

  function summarize(all: readonly Source[]): string {
    const groups = new Map<string, Source[]>();
    for (const source of all) {
      const folder = source.file.slice(0, source.file.indexOf('/'));
      const group = folder === 'src' ? `src ${roomOf(source.file.slice('src/'.length))}` : folder;
      groups.set(group, [...(groups.get(group) ?? []), source]);
    }
    return [...groups]
      .map(([group, files]) => {
        const longest = files.reduce((a, b) => (b.lines > a.lines ? b : a));
        const lines = files.reduce((sum, source) => sum + source.lines, 0);
        const counts = `${`${lines}`.padStart(6)} lines ${`${files.length}`.padStart(3)} files`;
        const what = rooms[group.replace('src ', '')]?.what;
        const line = `${group.padEnd(26)}${counts}, longest ${longest.lines} ${longest.file}`;
        return what === undefined ? line : `${line}\n    ${what}`;
      })
      .join('\n');
  }
}

function readSources(root: string, folder: string): Source[] {
  const at = path.join(root, folder);
  if (!existsSync(at)) return [];
  return readdirSync(at, { withFileTypes: true }).flatMap((entry): Source[] => {
    const file = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return skipped.has(entry.name) ? [] : readSources(root, file);
    if (!/\.(ts|mjs)$/.test(entry.name)) return [];
    const text = readFileSync(path.join(root, file), 'utf8');
    return [{ file, text, lines: text.split('\n').length - 1 }];
  });
}

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

/** Import and re-export statements, which the formatter starts at the first column, and calls of import(). */
export function importsOf(text: string): Import[] {
  const statements = [...text.matchAll(/^(?:import|export)\s([^'";]*?)\bfrom\s*['"]([^'"]+)['"]/gm)];
  const bare = [
    ...text.matchAll(/^import\s*['"]([^'"]+)['"]/gm),
    ...text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g),
  ];
  return [
    ...statements.map(([, names, target]) => ({ target: target!, typeOnly: namesTypes(names!) })),
    ...bare.map(([, target]) => ({ target: target!, typeOnly: false })),
  ];
}

/** `type { A }`, `{ type A, type B }` */
function namesTypes(names: string): boolean {
  if (/^type\s/.test(names)) return true;
  const list = /^\{([^}]*)\}\s*$/.exec(names)?.[1];
  return list?.split(',').every((name) => /^\s*(type\s.*)?$/s.test(name)) ?? false;
}

if (import.meta.main) {
  const { problems, summary } = checkHouse(path.join(import.meta.dirname, '..'), rules);
  console.log(summary);
  for (const problem of problems) console.error(`error: ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}
