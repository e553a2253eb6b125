import assert from 'node:assert/strict';
import test from 'node:test';
import { parsePolicy, typeName } from '../../src/models/policy.ts';

test('storage policies are taken in capitals, with spaces and as fp16', () => {
  assert.equal(parsePolicy('Q8_0').base, 'q8_0');
  assert.deepEqual(parsePolicy('Q4_K:MIN-DIM=64, FFN=Q8_0,Output=FP16'), {
    ...parsePolicy('q4_k:min-dim=64,ffn=q8_0,output=f16'),
    text: 'Q4_K:MIN-DIM=64, FFN=Q8_0,Output=FP16',
  });
  assert.deepEqual(['Q8_0', ' F16', 'fp32', 'BF16'].map(typeName), ['q8_0', 'f16', 'f32', 'bf16']);
});

test("llama.cpp's mixtures are refused with the name to use instead", () => {
  for (const [text, word] of [
    ['q4_k_m', 'q4_k'],
    ['Q5_K_S', 'q5_k'],
    ['q3_k_l', 'q4_k'],
  ] as const)
    assert.throws(() => parsePolicy(text), {
      code: 'InvalidOption',
      message: new RegExp(`mixtures of llama.cpp: say ${word}\\), got "${text}"`),
    });
});
