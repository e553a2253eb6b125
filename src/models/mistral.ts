/** Mistral (Jiang et al. 2023, arXiv:2310.06825): Llama with a sliding window. */
import { llama, readLlama } from './llama.ts';

export const mistral: typeof llama = {
  ...llama,
  read: (json) => {
    const window = json.optional('sliding_window', 'size', 4096);
    return { ...readLlama(json, { kvHeads: 8, contextLength: 131072 }), window: () => window };
  },
};
