/**
 * Phi-3 (arXiv:2404.14219): Llama with q, k and v in one tensor, gate and up in another, and LongRoPE: all positions of
 * a sequence longer than original_max_position_embeddings have other rope frequencies.
 */
import { llama, readLlama } from './llama.ts';

export const phi3: typeof llama = {
  ...llama,
  read: (json) => {
    const window = json.optional('sliding_window', 'size');
    return {
      ...readLlama(json, { contextLength: 4096, epsilon: 1e-5, rope: { original: 4096 } }),
      biases: { qkv: false, o: false, ffn: false },
      window: () => window,
      fused: true,
    };
  },
};
