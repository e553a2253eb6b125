/**
 * Load-time kernels that search weights for NaN, infinities, and values that become infinite in the weight's storage. Packing
 * and products would turn some of them into finite numbers.
 */

import type { FloatStorage } from '../quant/storage.ts';
import { type BlockStorage, storageLayout } from '../quant/storage.ts';
import {
  add,
  and,
  constant,
  divideUnsigned,
  type Func,
  hoistedConstant,
  type I32,
  i16,
  i32,
  type Local,
  lessUnsigned,
  load16u,
  type Module,
  multiply,
  or,
  repeat,
  shiftRight,
  storeI32,
  subtract,
  v,
  when,
} from '../wasm/assembler.ts';
import { RECORD_BYTES, recordLayout } from './record.ts';

/** Bytes that the kernel for single values reads at once. Memory behind the last value must be zero up to a whole line. */
export const CHECK_LINE = 64;

/**
 * source: address of the first value or block; count: lines of values, or blocks; limit: for single values, the smallest
 * invalid magnitude as bits of their type. The result is in word FOUND of the record.
 */
export const checkRecord = recordLayout('source', 'count', 'limit');
/** Index of the word that is set to 1 if an invalid value is found. */
export const FOUND = RECORD_BYTES / 4 - 1;

/** The name that `checkValuesKernel` or `checkBlocksKernel` exports. */
export const checkName = (type: FloatStorage | BlockStorage): string => `check_${type}`;

/** Exports a step kernel that checks single values. */
export function checkValuesKernel(module: Module, type: FloatStorage): Func {
  const { f, at, end, whenAny, limit, find } = shares(module, type, CHECK_LINE);
  const lanes = type === 'f32' ? i32 : i16;
  const magnitude = hoistedConstant(f, type === 'f32' ? 0x7fffffff : 0x7fff7fff).get;
  const largest = f.array('v128', 4);
  const all = largest.map((part) => part.get).reduce(lanes.maxS);
  return f.emit(
    whenAny(
      repeat(
        at,
        CHECK_LINE,
        end.get,
        ...largest.map((part, c) => part.set(lanes.maxS(part.get, v.and(v.load(at.get, 16 * c), magnitude)))),
      ),
      when(v.anyTrue(lanes.gtS(all, lanes.splat(subtract(limit, constant(1))))), [find]),
    ),
  );
}

/** Exports a step kernel that checks the f16 scales of blocks. */
export function checkBlocksKernel(module: Module, storage: BlockStorage): Func {
  const { bytes } = storageLayout[storage];
  const { f, at, end, whenAny, find } = shares(module, storage, bytes);
  const carries = f.local('i32');
  // An exponent of all ones carries into bit 15.
  const carry = (offset: number): I32 => add(and(load16u(at.get, offset), constant(0x7c00)), constant(0x400));
  return f.emit(
    whenAny(
      repeat(at, bytes, end.get, carries.set(scalesAt[storage].map(carry).reduce(or, carries.get))),
      when(shiftRight(carries.get, constant(15)), [find]),
    ),
  );
}

/** Byte offsets of the f16 scales and minima of a block. */
const scalesAt: Readonly<Record<BlockStorage, readonly number[]>> = {
  q8_0: [0],
  q4_0: [0],
  iq4_nl: [0],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
};

/** Starts a kernel that divides lines or blocks among the threads: from `at` to `end`. */
function shares(module: Module, type: FloatStorage | BlockStorage, bytes: number) {
  const f = module.func(checkName(type), ['i32', 'i32', 'i32']);
  const [record, thread, threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [at, end] = [f.local('i32'), f.local('i32')];
  const word = (name: (typeof checkRecord.names)[number]): I32 => checkRecord.load(record, name);
  const boundary = (n: I32): I32 =>
    add(word('source'), multiply(divideUnsigned(multiply(word('count'), n), threads.get), constant(bytes)));
  f.emit(at.set(boundary(thread.get)), end.set(boundary(add(thread.get, constant(1)))));
  const whenAny = (...body: Parameters<typeof when>[1]) => when(lessUnsigned(at.get, end.get), body);
  const find = storeI32(record.get, constant(1), 4 * FOUND);
  return { f, at: at as Local<'i32'>, end, whenAny, limit: word('limit'), find };
}
