/** Hash of the code that emits kernels: notes about kernels are valid only for the same code. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';

/** Folders of the sources, or of what they are compiled to, whose code reaches a kernel. */
const kernelFolders = ['quant', 'kernels', 'wasm', 'backend/wasm'];

/**
 * Depends on file names and contents only: modification times are those of an unpacked archive, or all equal.
 * @param root the folder of the sources, or of what they are compiled to
 * @throws errors of the system
 */
export function kernelHash(root: string): string {
  const hash = createHash('sha256');
  for (const file of kernelFolders.flatMap((folder) => filesIn(root, folder)).sort())
    hash
      .update(`${file}\n`)
      .update(readFileSync(`${root}/${file}`))
      .update('\n');
  return hash.digest('hex').slice(0, 16);
}

/** Modules in a folder and its folders, relative to the root. Written by the build itself: built.js. */
function filesIn(root: string, folder: string): string[] {
  return readdirSync(`${root}/${folder}`, { withFileTypes: true }).flatMap((entry) => {
    const file = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return filesIn(root, file);
    const isCode = /\.[jt]s$/.test(file) && !file.endsWith('.d.ts') && !/\/built\.[jt]s$/.test(file);
    return isCode ? [file] : [];
  });
}
