/**
 * out[t] (+)= table[index[t]] * scale. The table has the layout of layout.ts, where a row is one lane of its group, so that it
 * can also be the output head.
 */
import { iq4Levels } from '../quant/iq4_nl.ts';
import { isBlockStorage, type Storage, storageLayout } from '../quant/storage.ts';
import {
  add,
  and,
  constant,
  divideUnsigned,
  type F32,
  type Func,
  f32,
  f32Add,
  f32FromBits,
  f32FromI32,
  f32Multiply,
  hoistedBytes,
  hoistedConstant,
  type I32,
  i8,
  i16,
  i32,
  load8s,
  load8u,
  load16s,
  load16u,
  loadF32,
  loadI32,
  type Module,
  multiply,
  repeat,
  type Statement,
  shiftLeft,
  shiftRight,
  storeF32,
  subtract,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { kRow } from './k-row.ts';
import { BLOCK, LANES, type Q8Layout, stepBytes } from './layout.ts';
import { eachRow, rowWise, strideOf } from './loops.ts';
import { recordLayout } from './record.ts';

/**
 * table: a matrix of `width` columns; indices: i32 for each row, below the matrix's rows; out: rows of `width`; rows:
 * address of the row count; scale: bits of an f32.
 */
export const embedRecord = recordLayout('table', 'indices', 'out', 'rows', 'width', 'scale');

export interface EmbedOptions {
  readonly storage: Storage;
  readonly q8: Q8Layout;
  /** Whether to add to `out`; such a step is not idempotent. */
  readonly adds: boolean;
}

/** Exports the step kernel `embed_<storage>` or `embed_<storage>_add`. */
export function embedKernel(module: Module, { storage, q8, adds }: EmbedOptions): Func {
  const kernel = rowWise(module, `embed_${storage}${adds ? '_add' : ''}`, embedRecord);
  const { f, first, word } = kernel;
  const [width, stride, index] = [kernel.argument('width'), f.local('i32'), f.local('i32')];
  const [group, lane, out, end] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [scale, blockScale] = [f.local('f32'), f.local('f32')];
  const store = (value: F32, i: number): Statement => {
    const scaled = f32Multiply(value, scale.get);
    return storeF32(out.get, adds ? f32Add(loadF32(out.get, 4 * i), scaled) : scaled, 4 * i);
  };
  /** Address of this row's `bytes` within a line whose lanes hold as many. */
  const inLine = (bytes: number): I32 => add(group.get, multiply(lane.get, constant(bytes)));

  function floats(): Statement[] {
    if (storage === 'f32') return [store(loadF32(inLine(4)), 0)];
    if (storage === 'bf16') return [store(f32FromBits(shiftLeft(load16u(inLine(2)), constant(16))), 0)];
    return [store(half(), 0)];
  }

  /** This row's finite f16 in a line, shifted to the bits of an f32: too small by 2^112. */
  function half(offset = 0): F32 {
    const shifted = and(shiftLeft(load16s(inLine(2), offset), constant(13)), constant(0x8fffffff));
    return f32Multiply(f32FromBits(shifted), f32.constant(2 ** 112));
  }

  /** out[i] = q times the scale of the block, exactly; then as every value. */
  const storeQuant = (q: I32, i: number): Statement => store(f32Multiply(f32FromI32(q), blockScale.get), i);

  function q8Block(): Statement[] {
    const { neighbours, flip } = q8;
    return [
      blockScale.set(half()),
      ...Array.from({ length: BLOCK }, (_, i) => {
        const offset = LANES * (2 + i - (i % neighbours)) + (i % neighbours);
        const q = flip
          ? subtract(load8u(inLine(neighbours), offset), constant(128))
          : load8s(inLine(neighbours), offset);
        return storeQuant(q, i);
      }),
    ];
  }

  function q4Block(): Statement[] {
    const pairs = Array.from({ length: BLOCK / 2 }, (_, i) => {
      const byte = load8u(inLine(4), LANES * (2 + i - (i % 4)) + (i % 4));
      return [
        storeQuant(subtract(and(byte, constant(15)), constant(8)), i),
        storeQuant(subtract(shiftRight(byte, constant(4)), constant(8)), i + BLOCK / 2),
      ];
    });
    return [blockScale.set(half()), ...pairs.flat()];
  }

  /** Four values at a time: a word has columns 4 j and on in its low nibbles, 16 + 4 j and on in its high ones. */
  function iq4Block(): Statement[] {
    const [levels, nibble] = [hoistedBytes(f, iq4Levels), hoistedConstant(f, 0x0f0f0f0f)];
    const [word, value] = [f.local('v128'), f.local('v128')];
    const put = (indices: V128, i: number): Statement[] => [
      value.set(f32.fromI32(i32.extendLow(i16.extendLow(i8.swizzle(levels.get, v.and(indices, nibble.get)))))),
      value.set(f32.mul(f32.mul(value.get, f32.splat(blockScale.get)), f32.splat(scale.get))),
      v.store(out.get, adds ? f32.add(v.load(out.get, 4 * i), value.get) : value.get, 4 * i),
    ];
    const words = Array.from({ length: BLOCK / 8 }, (_, j) => [
      word.set(v.load32splat(inLine(4), LANES * (2 + 4 * j))),
      ...put(word.get, 4 * j),
      ...put(i16.shrU(word.get, 4), 4 * j + BLOCK / 2),
    ]);
    return [blockScale.set(half()), ...words.flat()];
  }

  function step(): Statement[] {
    if (storage === 'q8_0') return q8Block();
    if (storage === 'q4_0') return q4Block();
    if (storage === 'iq4_nl') return iq4Block();
    if (isBlockStorage(storage)) return kRow(f, storage, { group: group.get, lane: lane.get, half, store });
    return floats();
  }

  const values = storageLayout[storage].block;
  return f.emit(
    stride.set(strideOf(width.get)),
    scale.set(f32FromBits(word('scale'))),
    eachRow(
      kernel,
      index.set(loadI32(add(word('indices'), shiftLeft(first.get, constant(2))))),
      lane.set(and(index.get, constant(LANES - 1))),
      group.set(
        add(
          word('table'),
          multiply(
            shiftRight(index.get, constant(4)),
            multiply(divideUnsigned(width.get, constant(values)), constant(stepBytes(storage))),
          ),
        ),
      ),
      out.set(add(word('out'), multiply(first.get, stride.get))),
      end.set(add(out.get, shiftLeft(width.get, constant(2)))),
      repeat(out, 4 * values, end.get, ...step(), group.set(add(group.get, constant(stepBytes(storage))))),
    ),
  );
}
