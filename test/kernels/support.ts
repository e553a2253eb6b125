/** Shared by kernel tests: a memory with a bump allocator, and compilation of kernels. */
import assert from 'node:assert/strict';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { RECORD_BYTES } from '../../src/kernels/record.ts';
import { Module } from '../../src/wasm/assembler.ts';

export type Kernel = (...args: number[]) => number;

const host = nodeHost();
const MAXIMUM = 65536;

const compiled = new Map<string, WebAssembly.Module>();

/** Compiled modules by their bytes: tests instantiate the same kernels with many memories. */
function compiledOnce(bytes: Uint8Array<ArrayBuffer>, wide: boolean): WebAssembly.Module {
  const key = `${wide} ${Buffer.from(bytes).toString('latin1')}`;
  const module = compiled.get(key) ?? host.compile(bytes, { wide });
  compiled.set(key, module);
  return module;
}

/** Bytes of a thread's scratch area. */
const SCRATCH = 1 << 19;

/** The first area reaches across 2 GiB, where addresses become negative as signed numbers; all others lie above. */
const START = 2 ** 31 - 64;

export class Arena {
  readonly memory: WebAssembly.Memory;
  #next = START;

  /** What lies below the first area is never touched, and so takes no memory. */
  constructor(bytes = 1 << 24) {
    const initial = Math.ceil((START + bytes) / 65536);
    this.memory = new WebAssembly.Memory({ initial, maximum: MAXIMUM, shared: true });
  }

  /** Address of `bytes` new bytes, aligned to 64. They are zeros. */
  take(bytes: number): number {
    const address = this.#next;
    this.#next = Math.ceil((address + bytes) / 64) * 64;
    assert.ok(this.#next <= this.memory.buffer.byteLength, 'the arena is full');
    return address;
  }

  putF32(values: ArrayLike<number>): number {
    const address = this.take(values.length * 4);
    this.f32(address, values.length).set(values);
    return address;
  }

  putI32(values: ArrayLike<number>): number {
    const address = this.take(values.length * 4);
    this.i32(address, values.length).set(values);
    return address;
  }

  putBytes(values: Uint8Array): number {
    const address = this.take(values.length);
    new Uint8Array(this.memory.buffer, address, values.length).set(values);
    return address;
  }

  /** Rows of `width` values, padded to whole lines with `padding`. */
  putRows(values: ArrayLike<number>, width: number, padding = 3): number {
    const rows = values.length / width;
    const stride = rowStride(width);
    const padded = new Float32Array(rows * stride).fill(padding);
    for (let i = 0; i < values.length; i++) padded[Math.floor(i / width) * stride + (i % width)] = values[i]!;
    return this.putF32(padded);
  }

  /** Rows of `width` values without their padding. */
  rows(address: number, rows: number, width: number): Float32Array {
    const all = this.f32(address, rows * rowStride(width));
    return Float32Array.from(
      { length: rows * width },
      (_, i) => all[Math.floor(i / width) * rowStride(width) + (i % width)]!,
    );
  }

  f32(address: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, address, length);
  }

  i32(address: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, address, length);
  }

  /** A record with these argument words. */
  record(words: Int32Array): number {
    const address = this.take(RECORD_BYTES);
    this.i32(address + 8, words.length).set(words);
    return address;
  }

  /** Compiles what `emit` adds to a module; optimized, with 256 bits where `wide` and the host can. */
  compile(emit: (module: Module) => void, wide = true): Record<string, Kernel> {
    const module = new Module();
    emit(module);
    const bytes = module.encode({ maximum: MAXIMUM, shared: true }, wide ? 'wide' : 'narrow');
    const scratch = new WebAssembly.Global({ value: 'i32', mutable: false }, this.take(SCRATCH));
    const env = { memory: this.memory, scratch };
    return new WebAssembly.Instance(compiledOnce(bytes, wide), { env }).exports as Record<string, Kernel>;
  }
}

/** Values from one row of a buffer to the next. */
export const rowStride = (width: number): number => Math.ceil(width / 16) * 16;

/** Runs a step kernel as `threads` threads would, one after the other. */
export function runSplit(kernel: Kernel, record: number, threads: number): void {
  for (let thread = 0; thread < threads; thread++) kernel(record, thread, threads);
}

/** Small deterministic generator, uniform in [-1, 1). */
export function noise(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

export const randoms = (count: number, seed: number, factor = 1): Float32Array => {
  const random = noise(seed);
  return Float32Array.from({ length: count }, () => random() * factor);
};

/** Checks that every value is within `tolerance(i)` of the expected one; NaN only where expected. */
export function assertClose(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: (i: number) => number,
  message: string,
): void {
  assert.equal(got.length, expected.length, message);
  for (let i = 0; i < got.length; i++) {
    const [g, e] = [got[i]!, expected[i]!];
    const fine = Number.isNaN(e) ? Number.isNaN(g) : Math.abs(g - e) <= tolerance(i);
    assert.ok(fine, `${message}: value ${i} is ${g}, expected ${e} within ${tolerance(i)}`);
  }
}

/** The same bits. */
export function assertSameBits(got: Float32Array, expected: Float32Array, message: string): void {
  const [a, b] = [got, expected].map((x) => new Uint32Array(x.buffer, x.byteOffset, x.length)) as [
    Uint32Array,
    Uint32Array,
  ];
  assert.equal(a.length, b.length, message);
  for (let i = 0; i < a.length; i++) {
    assert.ok(a[i] === b[i], `${message}: value ${i} is ${got[i]}, expected the bits of ${expected[i]}`);
  }
}
