/** WebAssembly memories: reserved, grown, and handed out piece by piece. */
import { memoryRefused, OutOfMemoryError } from '../../../errors.ts';

export const WASM_PAGE = 65536;
/** Bytes that 32-bit addresses reach. */
export const MEMORY_LIMIT = 65536 * WASM_PAGE;
export const ALIGN = 64;

/** What modules import: a memory that may grow as far as addresses reach. */
export const memoryLimits = (shared: boolean): { maximum: number; shared: boolean } => ({
  maximum: MEMORY_LIMIT / WASM_PAGE,
  shared,
});

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

/** Undefined where the engine cannot reserve the addresses, as under a limit of the process's address space. */
export function reserveMemory(initial: number, maximum: number, shared: boolean): WebAssembly.Memory | undefined {
  try {
    return new WebAssembly.Memory({ initial, maximum, shared });
  } catch {
    return undefined;
  }
}

/** A memory that starts small and grows; views are made anew after each growth. */
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

/** Private area of each thread; kernels say what they need of it. */
export const SCRATCH_BYTES = 512 * 1024;
/** Where the regions begin: everything below belongs to the shared words and the control block. */
export const FIRST_REGION = 4096;
