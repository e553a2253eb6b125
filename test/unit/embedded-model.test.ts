/** Where the package of the embedded model is looked for. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import { embeddedFolder, findEmbedded } from '../../src/engine/embedded-node.ts';

const name = 'lanewise-stories';

/** A folder with these models; the program is in `app/bin`, the current folder `here`, the code where `code` says. */
function surroundings(t: TestContext, models: readonly string[]) {
  const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'lanewise-embedded-')));
  const [argument, before] = [process.argv[1]!, process.cwd()];
  const program = path.join(folder, 'app/bin/program.mjs');
  const here = path.join(folder, 'here');
  for (const made of [path.dirname(program), here, ...models.map((model) => path.join(folder, model))])
    mkdirSync(made, { recursive: true });
  for (const model of models) writeFileSync(path.join(folder, model, 'config.json'), '{}');
  process.argv[1] = program;
  process.chdir(here);
  t.after(() => {
    process.argv[1] = argument;
    process.chdir(before);
    rmSync(folder, { recursive: true, force: true });
  });
  const codeAt = (file: string): string => pathToFileURL(path.join(folder, file)).href;
  return { codeAt, find: (code?: string) => path.relative(folder, findEmbedded(code)).replaceAll('\\', '/') };
}

test('the embedded model is that of the checkout, or is found from code, program and current folder, in this order', (t) => {
  const checkout = `checkout/models/${name}`;
  const beside = `app/node_modules/${name}`;
  const current = `node_modules/${name}`;
  const { codeAt, find } = surroundings(t, [checkout, beside, current, `store/lanewise/node_modules/${name}`]);
  assert.equal(find(codeAt('checkout/src/node.ts')), checkout);
  assert.equal(find(codeAt('app/node_modules/lanewise/dist/node.js')), beside);
  assert.equal(
    find(codeAt('store/lanewise/node_modules/lanewise/dist/node.js')),
    `store/lanewise/node_modules/${name}`,
  );
  // A bundle has no address, or one where nothing is.
  assert.equal(find(undefined), beside);
  process.argv[1] = path.join(process.cwd(), 'other/program.mjs');
  assert.equal(find(undefined), current);
});

test('where it is not installed, the error says what to do, and its path is where it would be', (t) => {
  const { codeAt } = surroundings(t, []);
  for (const code of [undefined, codeAt('app/node_modules/lanewise/dist/node.js'), 'blob:nowhere']) {
    assert.throws(() => findEmbedded(code), {
      code: 'NoModel',
      message: /run npm install lanewise-stories, or name a model/,
    });
    assert.equal(embeddedFolder(code), path.join('node_modules', name));
  }
});
