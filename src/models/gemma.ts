/** Gemma (arXiv:2403.08295): Llama with a scaled embedding, (1 + w) norms and a gated tanh gelu. */
import { readActivation } from './config.ts';
import { llama, readLlama } from './llama.ts';

export const gemma: typeof llama = {
  ...llama,
  read: (json) => {
    if (json.flag('use_bidirectional_attention', false)) json.fail('use_bidirectional_attention', 'false');
    const config = readLlama(json, { kvHeads: 16, headDim: 256, contextLength: 8192, tied: true });
    const activation = readActivation(json, 'hidden_act', 'gelu_pytorch_tanh');
    return {
      ...config,
      // In the first configs gelu means the tanh approximation.
      activation: activation === 'gelu' ? 'gelu_tanh' : activation,
      biases: { ...config.biases, ffn: false },
      normPlus: 1,
      embeddingScale: Math.fround(Math.sqrt(config.dim)),
    };
  },
};
