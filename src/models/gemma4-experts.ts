/** Gemma 4's experts, parallel to the dense ffn of each layer: both read the same rows, each through its own norm. */
import type { Experts, Linear, Norm, PlanBuilder, Rows } from '../plan/builder.ts';
import type { Activation } from '../plan/step.ts';
import type { Config } from './config.ts';
import type { Manifest } from './weights.ts';

export interface ExpertSizes {
  readonly count: number;
  /** Experts per row. */
  readonly top: number;
  readonly ffn: number;
}

/** The model's settings that are used here. */
interface Layers {
  readonly dim: number;
  readonly epsilon: number;
  readonly activation: Activation;
}

export interface LayerExperts {
  /** Norm of the router's input. */
  readonly routerNorm: Norm;
  readonly router: Linear;
  readonly norm: Norm;
  readonly all: Experts;
  readonly postNorm: Norm;
  /** Norm of the dense ffn's output. */
  readonly densePostNorm: Norm;
}

export function readExperts(json: Config): ExpertSizes {
  const [count, top] = [json.size('num_experts'), json.size('top_k_experts')];
  if (top > count) json.fail('top_k_experts', `at most num_experts, ${count}`);
  return { count, top, ffn: json.size('moe_intermediate_size') };
}

export function expertWeights(m: Manifest, c: Layers, sizes: ExpertSizes, i: number): LayerExperts {
  const [file, ours] = [`model.layers.${i}`, `layers.${i}.experts`];
  const { count, top, ffn } = sizes;
  // Some GGUF files have gate and up in separate tensors.
  const apart = m.has(`${file}.experts.gate_proj`);
  const norm = (name: string, tensor: string): Norm => m.norm(`${ours}.${name}`, `${file}.${tensor}`, c.dim);
  const linear = (
    n: number,
    name: string,
    tensor: string,
    shape: readonly [number, number],
    first = 0,
    of = shape[0],
  ): Linear => {
    const options = { slice: { first, of }, stack: { count, index: n } };
    return { weight: m.matrix(`${ours}.${n}.${name}`, 'ffn', `${file}.experts.${tensor}`, shape, options) };
  };
  return {
    routerNorm: { weight: m.vector(`${ours}.router_norm`, 'norm', `${file}.router.scale`, c.dim) },
    router: { weight: m.matrix(`${ours}.router`, 'router', `${file}.router.proj.weight`, [count, c.dim]) },
    norm: norm('norm', 'pre_feedforward_layernorm_2'),
    all: {
      each: Array.from({ length: count }, (_, n) => ({
        ...(apart
          ? {
              gate: linear(n, 'gate', 'gate_proj', [ffn, c.dim]),
              up: linear(n, 'up', 'up_proj', [ffn, c.dim]),
            }
          : {
              gate: linear(n, 'gate', 'gate_up_proj', [ffn, c.dim], 0, 2 * ffn),
              up: linear(n, 'up', 'gate_up_proj', [ffn, c.dim], ffn, 2 * ffn),
            }),
        down: linear(n, 'down', 'down_proj', [c.dim, ffn]),
      })),
      top,
      normalize: true,
      factors: m.vector(`${ours}.factors`, 'norm', `${file}.router.per_expert_scale`, count),
      kind: c.activation,
    },
    postNorm: norm('post_norm', 'post_feedforward_layernorm_2'),
    densePostNorm: norm('dense_post_norm', 'post_feedforward_layernorm_1'),
  };
}

/** Sum of the outputs of the dense ffn and of the experts, each normalized. [T, dim] */
export function withExperts(p: PlanBuilder, c: Layers, l: LayerExperts, x: Rows, dense: Rows): Rows {
  const both = p.rmsNorm(dense, l.densePostNorm, c.epsilon);
  const routed = p.rmsNorm(x, l.routerNorm, c.epsilon);
  p.scale(routed, 1 / Math.sqrt(c.dim));
  const h = p.rmsNorm(x, l.norm, c.epsilon);
  const sum = p.zeros(h);
  p.addExperts(sum, h, p.matmul(routed, l.router), l.all);
  p.add(both, p.rmsNorm(sum, l.postNorm, c.epsilon));
  return both;
}
