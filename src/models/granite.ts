/** Granite (IBM 2024): Llama with four multipliers. */
import { llama, readLlama } from './llama.ts';

export const granite: typeof llama = {
  ...llama,
  read: (json) => ({
    ...readLlama(json),
    attentionScale: json.positive('attention_multiplier', 1),
    embeddingScale: json.positive('embedding_multiplier', 1),
    residualScale: json.positive('residual_multiplier', 1),
    logitScale: 1 / json.positive('logits_scaling', 1),
  }),
};
