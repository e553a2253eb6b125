/** Where the model that comes with the package lies, also when a bundler has moved the code. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ModelError } from '../errors.ts';

const place = 'models/lanewise-stories';
/** Undefined where Node's permission model does not let it be known. */
function isThere(folder: string): boolean | undefined {
  try {
    return existsSync(join(folder, 'config.json'));
  } catch {
    return undefined;
  }
}

/** The folder beside the code. Asks no file system and never fails. @param code address of src/node.ts, if it has one */
export function besideCode(code: string | undefined): string {
  try {
    return resolve(dirname(fileURLToPath(code ?? '')), '..', place);
  } catch {
    return join('node_modules/lanewise', place);
  }
}

/**
 * The folder given if it is there, else that of the package in a node_modules above the program's file or its folder.
 * @throws ModelError NoModel
 */
export function findEmbedded(given: string): string {
  // What may not be read is an error of its own where it is opened.
  if (isThere(given) !== false) return given;
  for (const start of [dirname(process.argv[1] ?? ''), process.cwd()]) {
    for (let folder = resolve(start), inner = ''; folder !== inner; inner = folder, folder = dirname(folder)) {
      const found = join(folder, 'node_modules/lanewise', place);
      if (isThere(found)) return found;
    }
  }
  throw new ModelError(
    'NoModel',
    `${given}: expected the embedded model, found nothing there; if a bundler moved the code, leave lanewise outside the bundle (serverExternalPackages in Next.js, external in esbuild and rollup, externals in webpack, ssr.external in vite) or name the folder of a model`,
  );
}
