/**
 * Qwen 2 (arXiv:2407.10671): Llama with biases of q, k and v, and a window in the upper layers. Qwen 3
 * (arXiv:2505.09388): norms over the heads of q and k instead of biases.
 */
import { type Config, readSliding } from './config.ts';
import { type LlamaConfig, type LlamaDefaults, llama, readLlama } from './llama.ts';

function read(json: Config, defaults: LlamaDefaults): LlamaConfig {
  const llama = readLlama(json, { kvHeads: 32, contextLength: 32768, ...defaults });
  const window = json.flag('use_sliding_window', false) ? json.optional('sliding_window', 'size', 4096) : undefined;
  const firstSliding = json.count('max_window_layers', 28);
  const sliding = readSliding(json, llama.layers, (i) => i >= firstSliding);
  return { ...llama, window: (i) => (sliding[i] ? window : undefined) };
}

export const qwen2: typeof llama = {
  ...llama,
  read: (json) => ({ ...read(json, {}), biases: { qkv: true, o: false, ffn: false } }),
};

export const qwen3: typeof llama = { ...llama, read: (json) => ({ ...read(json, { headDim: 128 }), headNorms: true }) };
