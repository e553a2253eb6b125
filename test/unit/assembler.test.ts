/** Numbers as WebAssembly writes them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { atomicWait, type Bytes, constant, drop, Module } from '../../src/wasm/assembler.ts';

const flat = (bytes: Bytes): number[] =>
  bytes.flatMap((item) => (typeof item === 'number' ? [item] : item instanceof Uint8Array ? [...item] : flat(item)));

/** The signed number that an opcode is followed by. */
function numberBehind(opcode: number, bytes: Bytes): bigint {
  const list = flat(bytes);
  let [value, shift] = [0n, 0n];
  for (let at = list.indexOf(opcode) + 1; ; at++) {
    value |= BigInt(list[at]! & 0x7f) << shift;
    shift += 7n;
    if (list[at]! < 0x80) return BigInt.asIntN(Number(shift), value);
  }
}

test('a time limit has 64 bits', () => {
  const limits = [0, 1, 63, 64, 0.25e9, 1e9, 2 ** 31 - 1, 2 ** 31, 3e9, 2 ** 32, 60e9, 2 ** 53 - 1, -1];
  for (const limit of limits) {
    const wait = atomicWait([], [], limit);
    assert.equal(numberBehind(0x42, wait), BigInt(limit));
    const module = new Module();
    module.func('waits', []).emit(drop(atomicWait(constant(0), constant(0), limit)));
    assert.ok(WebAssembly.validate(module.encode({ maximum: 1, shared: true })), `${limit}`);
  }
});

test('a constant has the bits of an i32, signed or not', () => {
  for (const value of [0, 1, -1, 63, 64, -64, -65, 127, 128, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, -(2 ** 31)])
    assert.equal(numberBehind(0x41, constant(value)), BigInt(value | 0));
});
