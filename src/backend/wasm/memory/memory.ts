/** Reserves and grows WebAssembly memories, and assigns addresses in them. */
import { memoryRefused, OutOfMemoryError } from '../../../errors.ts';

export const WASM_PAGE = 65536;
/** Bytes addressable with 32 bits. */
export const MEMORY_LIMIT = 65536 * WASM_PAGE;
export const ALIGN = 64;

/** Limits of the memory that modules import. */
export const memoryLimits = (shared: boolean): { maximum: number; shared: boolean } => ({
  maximum: MEMORY_LIMIT / WASM_PAGE,
  shared,
});

export const align = (bytes: number, to = ALIGN): number => Math.ceil(bytes / to) * to;

/** Assigns consecutive addresses. */
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

/** Undefined if the engine cannot reserve the address range, for instance under a limit of the process (ulimit -v). */
export function reserveMemory(initial: number, maximum: number, shared: boolean): WebAssembly.Memory | undefined {
  try {
    return new WebAssembly.Memory({ initial, maximum, shared });
  } catch {
    return undefined;
  }
}

/** A growable memory. Views become invalid when it grows. */
export class Memory {
  readonly wasm: WebAssembly.Memory;

  /** @throws OutOfMemoryError */
  constructor(bytes: number, shared: boolean) {
    const initial = Math.ceil(bytes / WASM_PAGE);
    const memory = [1, 2, 4, 8]
      .map((part) => Math.max(initial, MEMORY_LIMIT / WASM_PAGE / part))
      .reduce<WebAssembly.Memory | undefined>(
        (made, maximum) => made ?? reserveMemory(initial, maximum, shared),
        undefined,
      );
    if (memory) this.wasm = memory;
    else throw memoryRefused(bytes);
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

/** Size of the private area of each thread. */
export const SCRATCH_BYTES = 512 * 1024;
/** First address after the shared words and the control block. */
export const FIRST_REGION = 4096;
