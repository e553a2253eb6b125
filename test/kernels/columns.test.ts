/** The columns that a thread computes must be the same in matmuls and in the steps between them without a barrier. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { activateKernel, activateRecord } from '../../src/kernels/activate.ts';
import {
  activationBlockBytes,
  activationStride,
  groupBytes,
  groupsOf,
  padded,
  stepBytes,
} from '../../src/kernels/layout.ts';
import { matmulKernel, matmulRecord } from '../../src/kernels/matmul.ts';
import { floatPanel, floatRow } from '../../src/kernels/matmul-float.ts';
import { quantizeName, quantizeRowsKernel, quantizeRowsRecord } from '../../src/kernels/quantize-rows.ts';
import { Arena } from './support.ts';

const ROWS = 2;
const K = 3;
const UNTOUCHED = 77;
const int8 = { values: 'int8' } as const;

/** The blocks of 32 columns of row 1 whose values differ from `UNTOUCHED`, one for each `bytes`. */
function written(arena: Arena, row: number, blocks: number, bytes: number): number[] {
  return Array.from({ length: blocks }, (_, n) => n).filter((n) =>
    new Uint8Array(arena.memory.buffer, row + n * bytes, bytes).some((byte) => byte !== UNTOUCHED),
  );
}

test('a thread activates and quantizes the columns that it multiplied', () => {
  for (const width of [32, 64, 96, 160, 768, 1184]) {
    const blocks = width / 32;
    for (const threads of [1, 2, 3, 5]) {
      const seen: number[] = [];
      for (let thread = 0; thread < threads; thread++) {
        const arena = new Arena(1 << 20);
        const kernels = arena.compile((module) => {
          const [row, panel] = [floatRow(module, 'f32'), floatPanel(module, 'f32', { tokens: 4, lanes: 16 })];
          matmulKernel(module, 'f32', stepBytes('f32'), { row, panel });
          activateKernel(module, 'gelu_tanh', false);
          quantizeRowsKernel(module, int8, 'columns');
        });
        const rowBytes = padded(width) * 4;
        const stride = activationStride(int8, width);
        const area = (bytes: number): number => arena.putBytes(new Uint8Array(bytes).fill(UNTOUCHED));
        const [product, activated, quantized] = [area(ROWS * rowBytes), area(ROWS * rowBytes), area(ROWS * stride)];
        const rows = arena.putI32([ROWS]);
        const multiply = matmulRecord.words({
          x: arena.take(ROWS * 64),
          xStride: 64,
          w: arena.take(groupsOf(width) * groupBytes('f32', K)),
          groupBytes: groupBytes('f32', K),
          bias: 0,
          out: product,
          outStride: rowBytes,
          steps: K,
          groups: groupsOf(width),
          rows,
          add: 0,
        });
        kernels.matmul_f32!(arena.record(multiply), thread, threads);
        const activate = activateRecord.words({ x: product, up: 0, out: activated, rows, width });
        kernels.activate_gelu_tanh!(arena.record(activate), thread, threads);
        const quantize = quantizeRowsRecord.words({ x: activated, out: quantized, outStride: stride, rows, width });
        kernels[quantizeName(int8, 'columns')]!(arena.record(quantize), thread, threads);

        const own = written(arena, product + rowBytes, blocks, 128);
        const label = `thread ${thread} of ${threads}, ${width} columns`;
        assert.deepEqual(written(arena, activated + rowBytes, blocks, 128), own, `activated by ${label}`);
        assert.deepEqual(
          written(arena, quantized + stride, blocks, activationBlockBytes(int8)),
          own,
          `quantized by ${label}`,
        );
        seen.push(...own);
      }
      assert.deepEqual(
        seen,
        Array.from({ length: blocks }, (_, n) => n),
        'every block has one thread',
      );
    }
  }
});
