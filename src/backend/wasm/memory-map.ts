/**
 * Where everything lies in the one WebAssembly memory:
 *
 *   signals and control | batch arrays | page tables | tape | rope rows | scratch per thread | row buffers | weights | cache pages
 *
 * The cache comes last, so that it grows with the memory. While weights are loaded, its place holds the staging area.
 */
import { OutOfMemoryError } from '../../errors.ts';

export const WASM_PAGE = 65536;
/** Bytes that 32-bit addresses reach. */
export const MEMORY_LIMIT = 65536 * WASM_PAGE;
export const ALIGN = 64;

export const align = (bytes: number, to = ALIGN): number => Math.ceil(bytes / to) * to;

/** Hands out addresses one after the other. */
export class Allocator {
  #next: number;

  constructor(start: number) {
    this.#next = align(start);
  }

  get end(): number {
    return this.#next;
  }

  /** @throws OutOfMemoryError beyond 4 GiB */
  take(what: string, bytes: number): number {
    const address = this.#next;
    if (!(address + bytes <= MEMORY_LIMIT)) throw new OutOfMemoryError(what, bytes, MEMORY_LIMIT - address);
    this.#next = align(address + bytes);
    return address;
  }
}

/** A memory that starts small and grows; views are made anew after each growth. */
export class Memory {
  readonly wasm: WebAssembly.Memory;

  /** @throws OutOfMemoryError */
  constructor(bytes: number, shared: boolean) {
    const initial = Math.ceil(bytes / WASM_PAGE);
    try {
      this.wasm = new WebAssembly.Memory({ initial, maximum: MEMORY_LIMIT / WASM_PAGE, shared });
    } catch {
      throw new OutOfMemoryError('the model', bytes, 0);
    }
  }

  get byteLength(): number {
    return this.wasm.buffer.byteLength;
  }

  /** Grows to at least `bytes`. @throws OutOfMemoryError; the memory stays as it was */
  reserve(what: string, bytes: number): void {
    const missing = Math.ceil((bytes - this.byteLength) / WASM_PAGE);
    if (missing <= 0) return;
    try {
      this.wasm.grow(missing);
    } catch {
      throw new OutOfMemoryError(what, bytes - this.byteLength, MEMORY_LIMIT - this.byteLength);
    }
  }

  bytes(address: number, length: number): Uint8Array {
    return new Uint8Array(this.wasm.buffer, address, length);
  }

  i32(address: number, length: number): Int32Array {
    return new Int32Array(this.wasm.buffer, address, length);
  }

  f32(address: number, length: number): Float32Array {
    return new Float32Array(this.wasm.buffer, address, length);
  }
}
