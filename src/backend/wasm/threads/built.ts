/**
 * What the build adds to the package (tools/finish-build.ts writes the compiled form of this file), so that its code needs
 * no file beside it: bundlers move code, archives hide it.
 */
export interface Built {
  /** Source text of each thread with all that it imports, as a script. */
  readonly threads: { readonly kernels: string; readonly converter: string };
  /** The same of the thread of an engine: Brotli in Base64. */
  readonly engine: string;
  /** Hash of the code that makes kernels. */
  readonly kernelHash: string;
}

/** Undefined in a checkout, where threads run the files themselves. */
export const built: Built | undefined = undefined;
