/** Follows docs/add-an-architecture.md in a copy of the project. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';

const root = path.join(import.meta.dirname, '../..');
const copied = [
  'src',
  'test',
  'bench',
  'tools',
  'examples',
  'docs',
  'package.json',
  'tsconfig.json',
  'ARCHITECTURE.md',
];
const left = [/node_modules$/, /test\/golden\/./, /bench\/results$/];

/** ```LANGUAGE file=NAME ... ``` */
const blocks = (page: string) =>
  [...page.matchAll(/^```(\w+)(?: file=(\S+))?\n(.*?)^```$/gms)].map(([, language, file, text]) => ({
    language: language!,
    file,
    text: text!,
  }));

/** Inserts the lines with + after the lines that precede them in `diff`, which leaves out others in between. */
function insertLines(text: string, diff: string): string {
  const lines = text.split('\n');
  let at = 0;
  for (const line of diff.trimEnd().split('\n')) {
    if (line.startsWith('+')) lines.splice(at++, 0, line.slice(1));
    else {
      const found = lines.indexOf(line.slice(1), at);
      assert.ok(found >= 0, `the file has no line ${JSON.stringify(line.slice(1))}`);
      at = found + 1;
    }
  }
  return lines.join('\n');
}

test('following the page gives a model that passes the golden tests', () => {
  const copy = mkdtempSync(path.join(tmpdir(), 'lanewise-toy-'));
  try {
    for (const name of copied) {
      const filter = (from: string): boolean => !left.some((pattern) => pattern.test(from));
      cpSync(path.join(root, name), path.join(copy, name), { recursive: true, filter });
    }
    symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
    const outputs: string[] = [];
    for (const { language, file, text } of blocks(
      readFileSync(path.join(root, 'docs/add-an-architecture.md'), 'utf8'),
    )) {
      const target = file && path.join(copy, file);
      if (language === 'ts') writeFileSync(target!, text);
      else if (language === 'diff') writeFileSync(target!, insertLines(readFileSync(target!, 'utf8'), text));
      else outputs.push(...text.trim().split('\n').map(run));
    }
    const [, , , golden, , plan] = outputs;
    assert.match(golden!, /pass [4-9]\n(.*\n)*.*fail 0/);
    assert.match(plan!, /13 of 13/);
    assert.match(readFileSync(path.join(copy, 'docs/models.md'), 'utf8'), /\| Toy \| `toy` \| .* \| toy/);
  } finally {
    rmSync(copy, { recursive: true });
  }

  function run(command: string): string {
    const [program, ...args] = command.split(' ');
    assert.equal(program, 'node');
    const env = { ...process.env, NODE_TEST_CONTEXT: undefined, NO_COLOR: '1' };
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: copy, encoding: 'utf8', env });
    assert.equal(status, 0, `${command}\n${stdout}${stderr}`);
    return stdout;
  }
});
