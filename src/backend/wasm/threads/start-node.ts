/** Starts worker threads of Node from a checkout, from the package and from bundles. */
import { Worker, type WorkerOptions } from 'node:worker_threads';
import { brotliDecompressSync } from 'node:zlib';
import type { Built } from './built.ts';
// Imported as a namespace, so that its type is not narrowed to the value in a checkout.
import * as build from './built.ts';

/**
 * A thread that runs its file in a checkout, its source text in the package.
 * @param file name of the thread's file without extension @param base the module that it lies beside
 * @throws errors of the system, ERR_ACCESS_DENIED under Node's permission model
 */
export function startThread(
  role: keyof Built['threads'] | 'engine',
  file: string,
  base: string | undefined,
  name: string,
): Worker {
  const built = build.built as Built | undefined;
  // Threads must not inherit flags of the program such as --import or --input-type.
  const options: WorkerOptions = { execArgv: [], name };
  if (built !== undefined) {
    if (role !== 'engine') return new Worker(built.threads[role], { ...options, eval: true });
    const source = brotliDecompressSync(Buffer.from(built.engine, 'base64')).toString();
    const { threads, kernelHash } = built;
    return new Worker(source, { ...options, eval: true, workerData: { threads, kernelHash } });
  }
  const extension = base?.endsWith('.ts') ? 'ts' : 'js';
  return new Worker(besideModule(`${file}.${extension}`, base), options);
}

/** A function, because bundlers copy the file named by a literal `new URL(..., import.meta.url)`. */
export const besideModule = (name: string, base: string | undefined): URL => new URL(name, base);
