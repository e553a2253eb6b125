/**
 * SmolLM 3 (Hugging Face 2025): Llama in which every fourth layer (by default) has no rope; such layers may have a
 * window.
 */
import { readSliding } from './config.ts';
import { llama, readLlama } from './llama.ts';

export const smollm3: typeof llama = {
  ...llama,
  read: (json) => {
    const config = readLlama(json, { kvHeads: 4, contextLength: 32768, tied: true, rope: { base: 2e6 } });
    const interval = json.size('no_rope_layer_interval', 4);
    const rotates = json.has('no_rope_layers')
      ? json.flags('no_rope_layers', config.layers)
      : Array.from({ length: config.layers }, (_, i) => (i + 1) % interval !== 0);
    const window = json.flag('use_sliding_window', false) ? json.optional('sliding_window', 'size') : undefined;
    const sliding = readSliding(json, config.layers, (i) => !rotates[i]);
    return { ...config, rotates: (i) => rotates[i]!, window: (i) => (sliding[i] ? window : undefined) };
  },
};
