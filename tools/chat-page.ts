/**
 * Writes the table of Jinja's functions in docs/chat.md: `node tools/chat-page.ts`. The table lists the registries and
 * checks them against test/golden/chat-language/names.json, which Jinja has written.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { formatMethods } from '../src/chat/access.ts';
import { filters, tests } from '../src/chat/filters.ts';
import { globalsOf } from '../src/chat/globals.ts';
import { methodsByType } from '../src/chat/methods.ts';

const BEGIN = '<!-- written by tools/chat-page.ts -->';
const END = '<!-- end of what tools/chat-page.ts writes -->';

/** Differences from Python, and their reasons. */
const differences: readonly (readonly [what: string, how: string, why: string])[] = [
  ['filter `random`', 'returns the first item', 'the same messages give the same tokens'],
  ['global `lipsum`', 'returns the same words each time', 'the same messages give the same tokens'],
  ['`**`', 'of a negative number and a fraction is an error', 'Python returns a complex number'],
  ['integers', 'have at most 100 000 bits', 'memory and time are bounded'],
  [
    '`str.encode`, `bytes`',
    'support UTF-8, ASCII and Latin-1; bytes have `decode` and `hex`',
    'templates use no others',
  ],
  ['`\\N{...}` in a string', 'is an error', 'the names of all characters take a megabyte'],
  ['functions, methods and generators', 'are printed without their address', 'the address differs in each run'],
  ['slices of constants', '`{{ 1[1:] }}` is an error, as with variables', 'Jinja has other rules for constants'],
  ['set operations, such as `keys() - x`', 'are an error', 'there are no sets'],
  ['`include`, `import`, `from`, `extends`', 'are an error when executed', 'a chat template is a single file'],
];

interface Names {
  readonly filters: readonly string[];
  readonly tests: readonly string[];
  readonly globals: readonly string[];
  readonly methods: Readonly<Record<string, readonly string[]>>;
}

const parameters = (signature: string): string =>
  signature
    .split(' ')
    .filter((word) => word !== '' && word !== '/')
    .join(', ');

function row(kind: string, wanted: readonly string[], found: ReadonlyMap<string, string>): string {
  const lacking = wanted.filter((name) => !found.has(name));
  if (lacking.length > 0) throw new Error(`tools/chat-page.ts: ${kind} lack ${lacking.join(', ')}`);
  const more = [...found.keys()].filter((name) => !wanted.includes(name));
  const shown = [...wanted, ...more].sort().map((name) => {
    const known = parameters(found.get(name)!);
    return `\`${name}${known ? `(${known})` : ''}\``;
  });
  return `| ${kind} | ${shown.join(' ')} | ${wanted.length} of ${wanted.length} |`;
}

/** @throws Error if a name of Jinja is missing */
export function chatTable(root: string): string {
  const file = path.join(root, 'test/golden/chat-language/names.json');
  const names = JSON.parse(readFileSync(file, 'utf8')) as Names;
  const signatures = (table: Readonly<Record<string, readonly [string, ...unknown[]]>>): Map<string, string> =>
    new Map(Object.entries(table).map(([name, [signature]]) => [name, signature]));
  const rows = [
    row('filters', names.filters, signatures(filters)),
    row('tests', names.tests, signatures(tests)),
    row('globals', names.globals, new Map(globalsOf(undefined).map(([name]) => [name, '']))),
    ...Object.entries(names.methods).map(([type, methods]) => {
      const found = signatures(methodsByType[type]!);
      if (type === 'str') for (const [name, signature] of Object.entries(formatMethods)) found.set(name, signature);
      return row(`methods of ${type}`, methods, found);
    }),
  ];
  return [
    '| | name and parameters (`?`: optional; `*`, `**`: any others) | of those of Jinja 3.1.6 |',
    '|---|---|---|',
    ...rows,
    '',
    'Differences from Python:',
    '',
    '| what | difference | reason |',
    '|---|---|---|',
    ...differences.map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n');
}

/** The page with the table anew. */
export function chatPage(root: string): string {
  const page = readFileSync(path.join(root, 'docs/chat.md'), 'utf8');
  const [before, rest] = page.split(`${BEGIN}\n`);
  const [, after] = (rest ?? '').split(END);
  if (after === undefined) throw new Error(`tools/chat-page.ts: docs/chat.md lacks ${BEGIN} or ${END}`);
  return `${before}${BEGIN}\n${chatTable(root)}\n${END}${after}`;
}

if (import.meta.main) {
  const root = path.join(import.meta.dirname, '..');
  writeFileSync(path.join(root, 'docs/chat.md'), chatPage(root));
}
