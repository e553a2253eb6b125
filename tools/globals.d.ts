/**
 * Global types used in the declarations of this package. If the program's libraries (dom, @types/node) declare them, these
 * declarations add nothing; otherwise they are empty types.
 */
/// <reference lib="esnext.disposable" />
declare global {
  interface AbortSignal {}
  interface Blob {}
  interface File {}
  interface FileSystemDirectoryHandle {}
  interface FileSystemFileHandle {}
  interface Headers {}
  interface RequestInit {}
  interface Response {}
  interface URL {}
  namespace WebAssembly {
    interface Memory {}
    interface Module {}
  }
}

export {};
