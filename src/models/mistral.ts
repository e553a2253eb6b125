/** Mistral (Jiang et al. 2023, arXiv:2310.06825): Llama with a sliding window. */
import { llama, readLlama } from './llama.ts';

export const mistral: typeof llama = {
  ...llama,
  read: (json) => ({
    ...readLlama(json),
    window: json.has('sliding_window') ? json.size('sliding_window') : undefined,
  }),
};
