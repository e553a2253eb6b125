/**
 * Tensor names of GGUF and of Hugging Face, either both without `.weight` and `.bias`, or both complete. N stands for
 * the number of the layer, E for the number of an expert or head: GGUF has all experts of a layer in one tensor
 * [experts, out, in].
 */

export type TensorNames = Readonly<Record<string, string>>;

const head: TensorNames = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
};

const attention: TensorNames = {
  'blk.N.attn_q': 'model.layers.N.self_attn.q_proj',
  'blk.N.attn_k': 'model.layers.N.self_attn.k_proj',
  'blk.N.attn_v': 'model.layers.N.self_attn.v_proj',
  'blk.N.attn_output': 'model.layers.N.self_attn.o_proj',
  'blk.N.attn_q_norm': 'model.layers.N.self_attn.q_norm',
  'blk.N.attn_k_norm': 'model.layers.N.self_attn.k_norm',
};

const gated: TensorNames = {
  'blk.N.ffn_gate': 'model.layers.N.mlp.gate_proj',
  'blk.N.ffn_up': 'model.layers.N.mlp.up_proj',
  'blk.N.ffn_down': 'model.layers.N.mlp.down_proj',
};

const preNorms: TensorNames = {
  'blk.N.attn_norm': 'model.layers.N.input_layernorm',
  'blk.N.ffn_norm': 'model.layers.N.post_attention_layernorm',
};

export const llamaNames: TensorNames = { ...head, ...preNorms, ...attention, ...gated };

/** StableLM, which has a norm vector for each head of q and k. */
export const stablelmNames: TensorNames = {
  ...llamaNames,
  'blk.N.attn_q_norm': 'model.layers.N.self_attn.q_layernorm.norms.E',
  'blk.N.attn_k_norm': 'model.layers.N.self_attn.k_layernorm.norms.E',
};

export const mixtralNames: TensorNames = {
  ...head,
  ...preNorms,
  ...attention,
  'blk.N.ffn_gate_inp': 'model.layers.N.block_sparse_moe.gate',
  'blk.N.ffn_gate_exps': 'model.layers.N.block_sparse_moe.experts.E.w1',
  'blk.N.ffn_down_exps': 'model.layers.N.block_sparse_moe.experts.E.w2',
  'blk.N.ffn_up_exps': 'model.layers.N.block_sparse_moe.experts.E.w3',
};

export const qwen3MoeNames: TensorNames = {
  ...llamaNames,
  'blk.N.ffn_gate_inp': 'model.layers.N.mlp.gate',
  'blk.N.ffn_gate_exps': 'model.layers.N.mlp.experts.E.gate_proj',
  'blk.N.ffn_down_exps': 'model.layers.N.mlp.experts.E.down_proj',
  'blk.N.ffn_up_exps': 'model.layers.N.mlp.experts.E.up_proj',
};

export const phi3Names: TensorNames = {
  ...head,
  ...preNorms,
  'blk.N.attn_qkv': 'model.layers.N.self_attn.qkv_proj',
  'blk.N.attn_output': 'model.layers.N.self_attn.o_proj',
  'blk.N.ffn_up': 'model.layers.N.mlp.gate_up_proj',
  'blk.N.ffn_down': 'model.layers.N.mlp.down_proj',
};

/** Gemma 2, which has norms before and after each half of a block. */
export const gemma2Names: TensorNames = {
  ...head,
  ...attention,
  ...gated,
  'blk.N.attn_norm': 'model.layers.N.input_layernorm',
  'blk.N.post_attention_norm': 'model.layers.N.post_attention_layernorm',
  'blk.N.ffn_norm': 'model.layers.N.pre_feedforward_layernorm',
  'blk.N.post_ffw_norm': 'model.layers.N.post_feedforward_layernorm',
};

export const olmo2Names: TensorNames = {
  ...head,
  ...attention,
  ...gated,
  'blk.N.post_attention_norm': 'model.layers.N.post_attention_layernorm',
  'blk.N.post_ffw_norm': 'model.layers.N.post_feedforward_layernorm',
};

export const starcoder2Names: TensorNames = {
  ...head,
  ...preNorms,
  ...attention,
  'blk.N.ffn_up': 'model.layers.N.mlp.c_fc',
  'blk.N.ffn_down': 'model.layers.N.mlp.c_proj',
};

export const phi2Names: TensorNames = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.final_layernorm',
  output: 'lm_head',
  'blk.N.attn_norm': 'model.layers.N.input_layernorm',
  'blk.N.attn_q': 'model.layers.N.self_attn.q_proj',
  'blk.N.attn_k': 'model.layers.N.self_attn.k_proj',
  'blk.N.attn_v': 'model.layers.N.self_attn.v_proj',
  'blk.N.attn_output': 'model.layers.N.self_attn.dense',
  'blk.N.ffn_up': 'model.layers.N.mlp.fc1',
  'blk.N.ffn_down': 'model.layers.N.mlp.fc2',
};

export const gpt2Names: TensorNames = {
  token_embd: 'transformer.wte',
  position_embd: 'transformer.wpe',
  output_norm: 'transformer.ln_f',
  output: 'lm_head',
  'blk.N.attn_norm': 'transformer.h.N.ln_1',
  'blk.N.attn_qkv': 'transformer.h.N.attn.c_attn',
  'blk.N.attn_output': 'transformer.h.N.attn.c_proj',
  'blk.N.ffn_norm': 'transformer.h.N.ln_2',
  'blk.N.ffn_up': 'transformer.h.N.mlp.c_fc',
  'blk.N.ffn_down': 'transformer.h.N.mlp.c_proj',
};

export const gptNeoxNames: TensorNames = {
  token_embd: 'gpt_neox.embed_in',
  output_norm: 'gpt_neox.final_layer_norm',
  output: 'embed_out',
  'blk.N.attn_norm': 'gpt_neox.layers.N.input_layernorm',
  'blk.N.attn_qkv': 'gpt_neox.layers.N.attention.query_key_value',
  'blk.N.attn_output': 'gpt_neox.layers.N.attention.dense',
  'blk.N.ffn_norm': 'gpt_neox.layers.N.post_attention_layernorm',
  'blk.N.ffn_up': 'gpt_neox.layers.N.mlp.dense_h_to_4h',
  'blk.N.ffn_down': 'gpt_neox.layers.N.mlp.dense_4h_to_h',
};

const falcon: TensorNames = {
  token_embd: 'transformer.word_embeddings',
  output_norm: 'transformer.ln_f',
  output: 'lm_head',
  'blk.N.attn_qkv': 'transformer.h.N.self_attention.query_key_value',
  'blk.N.attn_output': 'transformer.h.N.self_attention.dense',
  'blk.N.ffn_up': 'transformer.h.N.mlp.dense_h_to_4h',
  'blk.N.ffn_down': 'transformer.h.N.mlp.dense_4h_to_h',
};

/** Falcon with one norm per block. */
export const falconNames: TensorNames = { ...falcon, 'blk.N.attn_norm': 'transformer.h.N.input_layernorm' };
/** Falcon with a norm for attention and another for the ffn. */
export const falcon40Names: TensorNames = {
  ...falcon,
  'blk.N.attn_norm': 'transformer.h.N.ln_mlp',
  'blk.N.attn_norm_2': 'transformer.h.N.ln_attn',
};

export const bertNames: TensorNames = {
  token_embd: 'embeddings.word_embeddings',
  position_embd: 'embeddings.position_embeddings',
  token_types: 'embeddings.token_type_embeddings',
  token_embd_norm: 'embeddings.LayerNorm',
  'blk.N.attn_q': 'encoder.layer.N.attention.self.query',
  'blk.N.attn_k': 'encoder.layer.N.attention.self.key',
  'blk.N.attn_v': 'encoder.layer.N.attention.self.value',
  'blk.N.attn_output': 'encoder.layer.N.attention.output.dense',
  'blk.N.attn_output_norm': 'encoder.layer.N.attention.output.LayerNorm',
  'blk.N.ffn_up': 'encoder.layer.N.intermediate.dense',
  'blk.N.ffn_down': 'encoder.layer.N.output.dense',
  'blk.N.layer_output_norm': 'encoder.layer.N.output.LayerNorm',
};

export const nomicBertNames: TensorNames = {
  token_embd: 'embeddings.word_embeddings',
  token_types: 'embeddings.token_type_embeddings',
  token_embd_norm: 'emb_ln',
  'blk.N.attn_qkv': 'encoder.layers.N.attn.Wqkv',
  'blk.N.attn_output': 'encoder.layers.N.attn.out_proj',
  'blk.N.attn_output_norm': 'encoder.layers.N.norm1',
  'blk.N.ffn_up': 'encoder.layers.N.mlp.fc11',
  'blk.N.ffn_gate': 'encoder.layers.N.mlp.fc12',
  'blk.N.ffn_down': 'encoder.layers.N.mlp.fc2',
  'blk.N.layer_output_norm': 'encoder.layers.N.norm2',
};

interface Place {
  readonly layer?: string;
  readonly expert?: string;
}

/**
 * The Hugging Face name of a GGUF name such as `blk.3.attn_q.weight`. In names of tensors with all experts, E remains
 * to be replaced. Older files have a tensor for each expert: `blk.3.ffn_up.5.weight`.
 */
export function huggingFaceName(names: TensorNames, gguf: string): string | undefined {
  const layer = /^blk\.(\d+)\./.exec(gguf)?.[1];
  const whole = layer === undefined ? gguf : gguf.replace(`.${layer}.`, '.N.');
  if (Object.hasOwn(names, whole)) return fill(names[whole]!, { layer });
  const [, stem, suffix] = /^(.*)\.(weight|bias)$/s.exec(gguf) ?? [];
  if (stem === undefined) return undefined;
  const pattern = layer === undefined ? stem : stem.replace(`.${layer}.`, '.N.');
  if (Object.hasOwn(names, pattern)) return `${fill(names[pattern]!, { layer })}.${suffix}`;
  const [, all, expert] = /^(.*)\.(\d+)$/s.exec(pattern) ?? [];
  if (all === undefined || !Object.hasOwn(names, `${all}_exps`)) return undefined;
  return fill(`${names[`${all}_exps`]!}.${suffix}`, { layer, expert });
}

export const fillExpert = (name: string, expert: number): string => fill(name, { expert: String(expert) });

const fill = (pattern: string, { layer, expert }: Place): string =>
  pattern
    .replace('.N.', layer === undefined ? '.N.' : `.${layer}.`)
    .replace('.E.', expert === undefined ? '.E.' : `.${expert}.`);

/** The GGUF name of a Hugging Face name, and the index of the expert within that tensor. */
export function ggufName(names: TensorNames, name: string): { name: string; expert?: number } | undefined {
  const [, stem, suffix] = /^(.*)\.(weight|bias)$/s.exec(name) ?? [];
  for (const [gguf, pattern] of patternsOf(names)) {
    const isWhole = /\.(weight|scale)$/.test(gguf);
    const match = isWhole ? pattern.exec(name) : stem === undefined ? null : pattern.exec(stem);
    if (!match) continue;
    const placed = match[1] === undefined ? gguf : gguf.replace('.N.', `.${match[1]}.`);
    const target = isWhole ? placed : `${placed}.${suffix}`;
    return match[2] === undefined ? { name: target } : { name: target, expert: Number(match[2]) };
  }
  return undefined;
}

const compiled = new WeakMap<TensorNames, readonly (readonly [gguf: string, pattern: RegExp])[]>();

function patternsOf(names: TensorNames): readonly (readonly [gguf: string, pattern: RegExp])[] {
  const known = compiled.get(names);
  if (known) return known;
  const patterns = Object.entries(names).map(([gguf, name]) => {
    const parts = name.split(/(?<=\.)[NE](?=\.|$)/).map((part) => part.replaceAll('.', '\\.'));
    return [gguf, new RegExp(`^${parts.join('(\\d+)')}$`)] as const;
  });
  compiled.set(names, patterns);
  return patterns;
}
