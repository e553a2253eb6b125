/** GGUF family of Ministral 3, with further keys for yarn and for the scale of queries by position. */
import { decoder, type Family, interleaved, type Settings, silu, window } from './gguf-family.ts';
import { llamaNames } from './gguf-names.ts';

const keys = {
  beta_fast: 'rope.scaling.yarn_beta_fast',
  beta_slow: 'rope.scaling.yarn_beta_slow',
  mscale_all_dim: 'rope.scaling.yarn_log_multiplier',
  llama_4_scaling_beta: 'attention.temperature_scale',
};

export const mistral3Family: Family = {
  modelType: 'ministral3',
  names: llamaNames,
  fields: [...decoder, window],
  constants: { ...silu, sliding_window: null },
  rows: interleaved,
  derived({ metadata }, { rope_scaling }) {
    if (rope_scaling === null) return {};
    const scaling: Settings = { ...(rope_scaling as Settings) };
    for (const [setting, key] of Object.entries(keys)) if (metadata.has(key)) scaling[setting] = metadata.positive(key);
    // GGUF has one key for mscale and mscale_all_dim; the published models have equal values.
    return { rope_scaling: { ...scaling, mscale: scaling.mscale_all_dim ?? null } };
  },
  metadata(settings) {
    const scaling = (settings.rope_scaling ?? settings.rope_parameters ?? {}) as Settings;
    return Object.entries(keys).flatMap(([setting, key]) =>
      typeof scaling[setting] === 'number' ? [[key, { type: 'float32', value: scaling[setting] }] as const] : [],
    );
  },
};
