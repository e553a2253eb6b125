import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { checkHouse, importsOf } from '../../tools/check-house.ts';
import type { Rules } from '../../tools/house-rules.ts';

const rules: Rules = {
  rooms: {
    formats: { what: 'Opens files.', imports: [] },
    models: { what: 'Makes plans.', imports: ['formats (types)'] },
    engine: { what: 'Loads models.', imports: ['formats', 'models'], packages: ['some-package'] },
  },
  shared: ['errors.ts'],
  platform: ['formats/adapters/node.ts'],
  maxLines: 10,
  maxArchitectureLines: 5,
  long: {},
};

const clean: Readonly<Record<string, string>> = {
  'package.json': '{ "dependencies": { "some-package": "1" }, "devDependencies": { "tool": "1" } }',
  'ARCHITECTURE.md':
    '# A\n\n[bytes](src/formats/bytes.ts)\n\n## Dependencies\n\n| package | why |\n|---|---|\n| some-package | a |\n| tool | b |\n\n## More\n\n| word | x |\n',
  'src/index.ts': "export { load } from './engine/load.ts';\n",
  'src/errors.ts': 'export class E {}\n',
  'src/formats/bytes.ts': "import { E } from '../errors.ts';\n",
  'src/formats/adapters/node.ts': "import { open } from 'node:fs/promises';\nimport { a } from '../bytes.ts';\n",
  'src/models/gpt2.ts': "import type { Bytes } from '../formats/bytes.ts';\n",
  'src/engine/load.ts': "import x from 'some-package';\nimport {\n  a,\n  b,\n} from '../formats/bytes.ts';\n",
  'test/node_modules/x.ts': '\n'.repeat(50),
};

/** Problems of the clean tree with some files changed. */
function problemsWith(changes: Record<string, string>, changedRules: Partial<Rules> = {}): readonly string[] {
  const root = mkdtempSync(path.join(tmpdir(), 'lanewise-house-'));
  try {
    for (const [file, text] of Object.entries({ ...clean, ...changes })) {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), text);
    }
    return checkHouse(root, { ...rules, ...changedRules }).problems;
  } finally {
    rmSync(root, { recursive: true });
  }
}

test('a tree that keeps the rules has no problems', () => assert.deepEqual(problemsWith({}), []));

const broken: readonly (readonly [string, Record<string, string>, string])[] = [
  [
    'an arrow against the table',
    { 'src/formats/a.ts': "import { load } from '../engine/load.ts';\n" },
    'src/formats/a.ts imports ../engine/load.ts: formats may import nothing',
  ],
  [
    'an arrow through a re-export',
    { 'src/formats/a.ts': "export * from '../models/gpt2.ts';\n" },
    'src/formats/a.ts imports ../models/gpt2.ts: formats may import nothing',
  ],
  [
    'a value where only types are allowed',
    { 'src/models/a.ts': "import { type A, b } from '../formats/bytes.ts';\n" },
    'src/models/a.ts imports ../formats/bytes.ts: models may import formats (types)',
  ],
  [
    'an import() against the table',
    { 'src/models/a.ts': "const a = await import('../engine/load.ts');\n" },
    'src/models/a.ts imports ../engine/load.ts: models may import formats (types)',
  ],
  [
    'the public surface imported from within',
    { 'src/engine/a.ts': "import { load } from '../index.ts';\n" },
    'src/engine/a.ts imports ../index.ts: engine may import formats, models',
  ],
  [
    'a shared file that imports a room',
    { 'src/errors.ts': "import { a } from './models/llama.ts';\n" },
    'src/errors.ts imports ./models/llama.ts: shared may import nothing',
  ],
  [
    'the platform outside adapters',
    { 'src/formats/a.ts': "import fs from 'node:fs';\n" },
    'src/formats/a.ts imports node:fs: the platform belongs into an adapter',
  ],
  [
    'a portable file that imports an adapter',
    { 'src/formats/a.ts': "import { a } from './adapters/node.ts';\n" },
    'src/formats/a.ts imports ./adapters/node.ts: it uses the platform',
  ],
  [
    'a package of another room',
    { 'src/formats/a.ts': "import 'some-package';\n" },
    'src/formats/a.ts imports some-package: packages of formats: none',
  ],
  [
    'an import from outside src',
    { 'src/engine/a.ts': "import { a } from '../../bench/a.ts';\n" },
    'src/engine/a.ts imports ../../bench/a.ts: it is outside src',
  ],
  [
    'a circle of imports',
    {
      'src/formats/a.ts': "import { b } from './b.ts';\n",
      'src/formats/b.ts': "export * from './c.ts';\n",
      'src/formats/c.ts': "import { a } from './a.ts';\n",
    },
    'import circle: src/formats/a.ts -> src/formats/b.ts -> src/formats/c.ts -> src/formats/a.ts',
  ],
  [
    'a circle closed by an import of types',
    {
      'src/formats/a.ts': "import { b } from './b.ts';\n",
      'src/formats/b.ts': "import type { A } from './a.ts';\n",
    },
    'import circle: src/formats/a.ts -> src/formats/b.ts -> src/formats/a.ts',
  ],
  ['an unknown room', { 'src/attic/a.ts': '\n' }, 'src/attic/a.ts: no such room: attic'],
  ['a long file', { 'bench/a.ts': '\n'.repeat(11) }, 'bench/a.ts has 11 lines, 10 are allowed'],
  ['a long architecture', { 'src/models/a.ts': '\n'.repeat(6) }, 'src/models/a.ts has 6 lines, 5 are allowed'],
  [
    'an unexplained dependency',
    { 'package.json': '{ "dependencies": { "some-package": "1" }, "devDependencies": { "tool": "1", "word": "1" } }' },
    'ARCHITECTURE.md does not say why word is there',
  ],
  [
    'a row for no dependency',
    { 'package.json': '{ "dependencies": { "some-package": "1" } }' },
    'ARCHITECTURE.md explains tool, which is no dependency',
  ],
  [
    'a dead link',
    { 'ARCHITECTURE.md': clean['ARCHITECTURE.md']!.replace('bytes.ts', 'gone.ts') },
    'ARCHITECTURE.md points at src/formats/gone.ts',
  ],
];

for (const [name, changes, problem] of broken) {
  test(`refuses ${name}`, () => assert.deepEqual(problemsWith(changes), [problem]));
}

test('refuses rooms that import each other', () => {
  const rooms = {
    ...rules.rooms,
    formats: { what: 'Opens files.', imports: ['engine (types)'] },
    engine: { what: 'Loads models.', imports: ['formats'], packages: ['some-package'] },
  };
  const files = { 'src/formats/a.ts': "import type { load } from '../engine/load.ts';\n" };
  assert.deepEqual(problemsWith(files, { rooms }), ['rooms in a circle: formats -> engine -> formats']);
});

test('prints what happens in each room', () => {
  const root = mkdtempSync(path.join(tmpdir(), 'lanewise-house-'));
  try {
    for (const [file, text] of Object.entries(clean)) {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), text);
    }
    assert.match(checkHouse(root, rules).summary, /^src formats .*\n {4}Opens files\.$/m);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('a long file needs a reason, a reason needs a long file', () => {
  const long = { 'bench/a.ts': 'a table' };
  assert.deepEqual(problemsWith({ 'bench/a.ts': '\n'.repeat(11) }, { long }), []);
  assert.deepEqual(problemsWith({ 'bench/a.ts': '\n' }, { long }), ['bench/a.ts is listed as long, but is not']);
});

test('reads every form of import and no comments', () => {
  const text = [
    "import a from './a.ts';",
    "import type { B } from './b.ts';",
    "import { type C, type D } from './c.ts';",
    'import {',
    '  type E,',
    '  f,',
    "} from './e.ts';",
    "export * from './g.ts';",
    "export type { H } from './h.ts';",
    "import './i.ts';",
    "const from = await import('./j.ts');",
    " * import { load } from 'lanewise';",
    "const text = 'from';",
    "export const x = 'k', y = [from, 'l'];",
  ].join('\n');
  assert.deepEqual(
    importsOf(text).map(({ target, typeOnly }) => `${target}${typeOnly ? ' (types)' : ''}`),
    ['./a.ts', './b.ts (types)', './c.ts (types)', './e.ts', './g.ts', './h.ts (types)', './i.ts', './j.ts'],
  );
});
