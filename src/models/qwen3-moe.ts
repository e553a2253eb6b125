/** Qwen 3 MoE (arXiv:2505.09388): Qwen 3 with experts in most layers. */
import type { llama } from './llama.ts';
import { qwen3 } from './qwen.ts';

export const qwen3Moe: typeof llama = {
  ...qwen3,
  read(json) {
    const dense = qwen3.read(json);
    const experts = {
      count: json.size('num_experts', 128),
      top: json.size('num_experts_per_tok', 8),
      normalize: json.flag('norm_topk_prob', false),
      ffn: json.size('moe_intermediate_size', 768),
      part: 'mlp',
      names: { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
    };
    if (experts.top > experts.count) json.fail('num_experts_per_tok', `at most num_experts, ${experts.count}`);
    const every = json.size('decoder_sparse_step', 1);
    const denseLayers = new Set(json.counts('mlp_only_layers'));
    const isSparse = (layer: number): boolean => !denseLayers.has(layer) && (layer + 1) % every === 0;
    return { ...dense, experts: (layer) => (isSparse(layer) ? experts : undefined) };
  },
};
