/** GGUF families of Gemma. */
import { decoder, type Family, field, type Settings, window } from './gguf-family.ts';
import { gemma4Family } from './gguf-gemma4.ts';
import { gemma2Names, llamaNames } from './gguf-names.ts';

/** The scale of queries. Without attention.scale, 27B models use dim / heads in place of the head width. */
const queryScale =
  (layersOf27B: number): NonNullable<Family['derived']> =>
  ({ metadata }, settings) => ({
    query_pre_attn_scalar: metadata.has('attention.scale')
      ? 1 / metadata.positive('attention.scale') ** 2
      : usualQueryScale(layersOf27B, settings),
  });

const usualQueryScale = (layersOf27B: number, settings: Settings): number => {
  const { num_hidden_layers, hidden_size, num_attention_heads, head_dim } = settings;
  return num_hidden_layers === layersOf27B ? Number(hidden_size) / Number(num_attention_heads) : Number(head_dim);
};

/** The scale of scores, if it is not the one that readers assume. Same arguments as `queryScale`. */
const unusualQueryScale =
  (layersOf27B: number): NonNullable<Family['scale']> =>
  (settings) => {
    const scalar = settings.query_pre_attn_scalar;
    return scalar === usualQueryScale(layersOf27B, settings) ? undefined : 1 / Math.sqrt(Number(scalar));
  };

const gemma: Family = {
  modelType: 'gemma',
  names: llamaNames,
  fields: decoder,
  constants: { hidden_act: 'gelu_pytorch_tanh', hidden_activation: 'gelu_pytorch_tanh' },
  onePlusNorms: true,
};
export const gemmaFamilies: Readonly<Record<string, Family>> = {
  gemma,
  gemma4: gemma4Family,
  gemma2: {
    ...gemma,
    modelType: 'gemma2',
    names: gemma2Names,
    fields: [
      ...decoder,
      window,
      field('attn_logit_softcapping', 'positive', 'attn_logit_softcapping', { fallback: 50 }),
      field('final_logit_softcapping', 'positive', 'final_logit_softcapping', { fallback: 30 }),
    ],
    derived: queryScale(46),
    scale: unusualQueryScale(46),
  },
  gemma3: {
    ...gemma,
    modelType: 'gemma3_text',
    names: gemma2Names,
    fields: [...decoder, window, field('rope.freq_base_swa', 'positive', 'rope_local_base_freq', { fallback: 10_000 })],
    constants: { ...gemma.constants, sliding_window_pattern: 6 },
    derived: queryScale(62),
    scale: unusualQueryScale(62),
  },
};
