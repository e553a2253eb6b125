/** Reads the rope settings of config.json. */
import { type RopeScaling, type RopeTable, ropeTable } from '../plan/rope.ts';
import type { Config } from './config.ts';

export interface RopeDefaults {
  /** Default base. */
  readonly base?: number;
  /** Key of the base outside rope_parameters. Default rope_theta. */
  readonly baseKey?: string;
  /** Default fraction of a head that is rotated. */
  readonly rotated?: number;
  /** Key of this fraction outside rope_parameters. Default partial_rotary_factor. */
  readonly rotatedKey?: string;
  /** Default of original_max_position_embeddings, for models that read it outside rope_parameters first (Phi-3). */
  readonly original?: number;
  /** Entry of rope_parameters, for models with a rope per kind of layers. */
  readonly part?: string;
}

/**
 * Reads both styles: rope_theta with rope_scaling, and rope_parameters with both. Missing keys are looked up at the top
 * level of the config, as transformers does (modeling_rope_utils.py).
 */
export function readRope(config: Config, name: string, headDim: number, defaults: RopeDefaults = {}): RopeTable {
  const { base = 10_000, baseKey = 'rope_theta', rotated = 1, rotatedKey = 'partial_rotary_factor', part } = defaults;
  const all = config.object('rope_scaling') ?? config.object('rope_parameters');
  const own = (part !== undefined && all?.object(part)) || all;
  const among = (key: string, outside: string, fallback: number): number =>
    own?.has(key) ? own.positive(key) : config.positive(outside, fallback);
  const theta = among('rope_theta', baseKey, base);
  const proportion = among('partial_rotary_factor', rotatedKey, rotated);
  if (proportion > 1) (own?.has('partial_rotary_factor') ? own : config).fail(rotatedKey, 'at most 1');
  const scaling = own ? readScaling(own, config, headDim * proportion, defaults) : ({ type: 'default' } as const);
  // The exponents of a proportional rope are spread over the whole head.
  const dims = scaling.type === 'proportional' ? headDim : Math.floor(headDim * proportion);
  if (proportion === 1 && headDim % 2) config.fail('head_dim', 'even');
  return ropeTable(name, dims, theta, scaling);
}

/** @param rotated number of values of a head that are rotated, not yet rounded */
function readScaling(scaling: Config, config: Config, rotated: number, defaults: RopeDefaults): RopeScaling {
  const key = scaling.has('rope_type') ? 'rope_type' : 'type';
  const type = scaling.text(key, 'default');
  const context = (): number => config.size('max_position_embeddings', 2048);
  const original = (): number => {
    const key = 'original_max_position_embeddings';
    if (defaults.original !== undefined) return config.size(key, defaults.original);
    return scaling.has(key) ? scaling.size(key) : config.size(key, context());
  };
  const factor = (): number => scaling.positive('factor');
  const optional = (name: string): number | undefined => scaling.optional(name, 'positive');
  switch (type) {
    case 'default':
    // For text the positions of all sections are equal.
    case 'mrope':
      return { type: 'default' };
    case 'linear':
      return { type, factor: factor() };
    case 'proportional':
      return { type, factor: scaling.positive('factor', 1), pairs: Math.floor(rotated / 2) };
    case 'llama3':
      return {
        type,
        factor: factor(),
        low: scaling.positive('low_freq_factor'),
        high: scaling.positive('high_freq_factor'),
        original: original(),
      };
    case 'yarn':
      return {
        type,
        factor: factor(),
        original: original(),
        betaFast: scaling.positive('beta_fast', 32),
        betaSlow: scaling.positive('beta_slow', 1),
        magnitude: optional('attention_factor'),
        mscale: optional('mscale'),
        mscaleAllDim: optional('mscale_all_dim'),
        truncate: scaling.flag('truncate', true),
      };
    case 'longrope':
    case 'su': {
      const pairs = Math.ceil(Math.floor(rotated) / 2);
      return {
        type: 'longrope',
        original: original(),
        factor: optional('factor') ?? context() / original(),
        magnitude: optional('attention_factor'),
        short: scaling.positives('short_factor', pairs),
        long: scaling.positives('long_factor', pairs),
      };
    }
    default:
      return scaling.fail(key, 'default, linear, llama3, yarn, longrope or proportional');
  }
}
