/** Mixtral (arXiv:2401.04088): Mistral with eight experts in place of the ffn, two per row. */
import { llama } from './llama.ts';
import { mistral } from './mistral.ts';

export const mixtral: typeof llama = {
  ...llama,
  read(json) {
    const mistral7b = mistral.read(json);
    const experts = {
      count: json.size('num_local_experts', 8),
      top: json.size('num_experts_per_tok', 2),
      normalize: true,
      ffn: mistral7b.ffn,
      part: 'block_sparse_moe',
      names: { gate: 'w1', up: 'w3', down: 'w2' },
    };
    if (experts.top > experts.count) json.fail('num_experts_per_tok', `at most num_local_experts, ${experts.count}`);
    return { ...mistral7b, experts: () => experts };
  },
};
