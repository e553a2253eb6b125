import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { describeModel, printPlan } from '../../src/node.ts';

/** Embedding and first layer of a small Mistral: each step with scope, shapes, storage and bytes. */
const expected = `
   0  embedding           embed      %0 [Tx64] = embedding[token] bf16
   1  layer[0].attention  norm       rms %0 [Tx64] layers.0.attention.norm -> %1 [Tx64]
   2  layer[0].attention  matmul     q8_0 [Tx64]x[64x64] layers.0.attention.q -> %2 [Tx64]  4352 B
   3  layer[0].attention  matmul     q8_0 [Tx64]x[32x64] layers.0.attention.k -> %4 [Tx32]  2176 B
   4  layer[0].attention  matmul     q8_0 [Tx64]x[32x64] layers.0.attention.v -> %6 [Tx32]  2176 B
   5  layer[0].attention  rope       rope %2 [Tx64] 4 heads of 16 -> %3 [Tx64]
   6  layer[0].attention  rope       rope %4 [Tx32] 2 heads of 16 -> %5 [Tx32]
   7  layer[0].attention  appendKv   cache 0 <- %5 [Tx32], %6 [Tx32]
   8  layer[0].attention  attention  %3 [Tx64] cache 0: 4/2 heads of 16 window 8 -> %7 [Tx64]
   9  layer[0].attention  matmul     q8_0 [Tx64]x[64x64] layers.0.attention.o +> %0 [Tx64]  4352 B
  10  layer[0].ffn        norm       rms %0 [Tx64] layers.0.ffn.norm -> %8 [Tx64]
  11  layer[0].ffn        matmul     q8_0 [Tx64]x[160x64] layers.0.ffn.gate -> %9 [Tx160]  10880 B
  12  layer[0].ffn        matmul     q8_0 [Tx64]x[160x64] layers.0.ffn.up -> %10 [Tx160]  10880 B
  13  layer[0].ffn        activate   silu %9 [Tx160] * %10 [Tx160] -> %11 [Tx160]
  14  layer[0].ffn        matmul     q8_0 [Tx160]x[64x160] layers.0.ffn.down +> %0 [Tx64]  10880 B
  15  layer[1].attention  norm       rms %0 [Tx64] layers.1.attention.norm -> %12 [Tx64]
  16  layer[1].attention  matmul     q8_0 [Tx64]x[64x64] layers.1.attention.q -> %13 [Tx64]  4352 B
  17  layer[1].attention  matmul     q8_0 [Tx64]x[32x64] layers.1.attention.k -> %15 [Tx32]  2176 B
  18  layer[1].attention  matmul     q8_0 [Tx64]x[32x64] layers.1.attention.v -> %17 [Tx32]  2176 B
  19  layer[1].attention  rope       rope %13 [Tx64] 4 heads of 16 -> %14 [Tx64]
`;

test('a plan prints every step', async () => {
  const { plan } = await describeModel(
    fileURLToPath(new URL('../golden/models/mistral-window', import.meta.url)),
    'q8_0',
  );
  const lines = printPlan(plan).trimEnd().split('\n');
  assert.equal(lines.length, plan.steps.length);
  const first = expected.trim().split('\n');
  assert.deepEqual(
    lines.slice(0, first.length).map((line) => line.trim()),
    first.map((line) => line.trim()),
  );
});
