/** Ministral 3 (Mistral 2025): Mistral with yarn, and queries scaled by the logarithm of their position. */
import { llama, readLlama } from './llama.ts';

export const ministral3: typeof llama = {
  ...llama,
  read(json) {
    const config = readLlama(json, { kvHeads: 8, headDim: 128, contextLength: 262_144, epsilon: 1e-5 });
    const window = json.optional('sliding_window', 'size');
    const scaling = json.object('rope_scaling') ?? json.object('rope_parameters');
    const plain = { ...config, window: () => window };
    const key = 'llama_4_scaling_beta';
    if (!scaling?.has(key)) return plain;
    if (config.rope.rotary !== config.headDim) json.fail('partial_rotary_factor', '1 or absent');
    const growth = { beta: scaling.positive(key), original: scaling.size('original_max_position_embeddings') };
    return { ...plain, queryRope: { ...config.rope, name: 'rope.queries', growth } };
  },
};
