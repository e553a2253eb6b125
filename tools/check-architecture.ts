/** Checks ARCHITECTURE.md against the package and the files. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** Checks that every dependency has a row in the table of ARCHITECTURE.md, and every row a dependency. */
export function checkDependencies(root: string): string[] {
  const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as Record<string, unknown>;
  const kinds = ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies'];
  const names = kinds.flatMap((kind) => Object.keys(manifest[kind] ?? {}));
  const section = /^## Dependencies$(.*?)(?=^## |$(?![\s\S]))/ms.exec(architecture(root))?.[1] ?? '';
  const rows = [...section.matchAll(/^\|\s*([^|\s]+)\s*\|/gm)].map(([, name]) => name!);
  const explained = rows.filter((name) => name !== 'package' && !/^:?-+:?$/.test(name));
  return [
    ...names
      .filter((name) => !explained.includes(name))
      .map((name) => `ARCHITECTURE.md does not say why ${name} is there`),
    ...explained
      .filter((name) => !names.includes(name))
      .map((name) => `ARCHITECTURE.md explains ${name}, which is no dependency`),
  ];
}

/** Checks that the files linked in ARCHITECTURE.md exist. */
export function checkLinks(root: string): string[] {
  const links = [...architecture(root).matchAll(/\]\(((?!https?:)[^)#]+)/g)].map(([, target]) => target!);
  return links
    .filter((target) => !existsSync(path.join(root, target)))
    .map((target) => `ARCHITECTURE.md points at ${target}`);
}

const architecture = (root: string): string => readFileSync(path.join(root, 'ARCHITECTURE.md'), 'utf8');
