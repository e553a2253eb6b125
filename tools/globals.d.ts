/**
 * Names of global types that the declarations of this package use. Where the program's libraries (dom, @types/node) declare
 * them, these add nothing; elsewhere the names exist and say nothing.
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
