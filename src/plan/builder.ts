/** Builds a plan: an architecture file calls these methods in the order of computation. */
import { OptionError } from '../errors.ts';
import { KV_BLOCK, type KvStorage } from '../quant/kv-cache.ts';
import { gatherProducts } from './order.ts';
import type { RopeTable } from './rope.ts';
import {
  type Activation,
  type BufferId,
  type CacheId,
  type KvCacheSpec,
  type Plan,
  type PlannedWeight,
  type RopeId,
  type RowBuffer,
  type Step,
  SUMMARY_CHUNK,
  type WeightId,
} from './step.ts';

/** A weight as an architecture file holds it. */
export interface Weight {
  readonly id: WeightId;
  readonly shape: readonly number[];
}
export interface Linear {
  readonly weight: Weight;
  readonly bias?: Weight;
}
/** Rows flowing through the model. */
export interface Rows {
  /** Id of the buffer that currently holds them. */
  id: BufferId;
  readonly width: number;
}
export interface Norm {
  readonly weight: Weight;
  readonly bias?: Weight;
}
/** Changes to attention scores before the softmax. */
export interface ScoreOptions {
  readonly cap?: number;
  /** Slopes, one per head. */
  readonly alibi?: readonly number[];
}
export interface AttentionOptions extends ScoreOptions {
  /** Rows attend to later positions too: a whole sequence must be in one forward. */
  readonly bidirectional?: boolean;
}
/** The experts of a layer, without biases. */
export interface Experts {
  readonly each: readonly { readonly gate: Linear; readonly up: Linear; readonly down: Linear }[];
  /** Number of experts per row. */
  readonly top: number;
  /** Whether the shares of the chosen experts are normalized to sum to 1. */
  readonly normalize: boolean;
  /** Factor on the share of each expert. [experts] */
  readonly factors?: Weight;
  readonly kind: Activation;
}
/** `Omit` that distributes over a union. */
type Unscoped<S> = S extends unknown ? Omit<S, 'scope'> : never;

export interface PlanOptions {
  /** How keys and values are stored. Default f32. */
  readonly kvCache?: KvStorage;
}

export class PlanBuilder {
  readonly #buffers: RowBuffer[] = [];
  readonly #caches: KvCacheSpec[] = [];
  readonly #ropes: RopeTable[] = [];
  readonly #steps: Step[] = [];
  readonly #scopes: string[] = [];
  readonly #options: PlanOptions;

  constructor(options: PlanOptions = {}) {
    this.#options = options;
  }

  /** Sets the scope of the steps that `body` adds: the dotted path in timings and in the printed plan. */
  scope<T>(name: string, body: () => T): T {
    this.#scopes.push(name);
    const result = body();
    this.#scopes.pop();
    return result;
  }

  /** @throws OptionError if the head dimension is not a multiple of the storage's block */
  cache(spec: Omit<KvCacheSpec, 'storage'>): CacheId {
    const { kvCache: storage = 'f32' } = this.#options;
    if (storage === 'q8_0' && spec.headDim % KV_BLOCK)
      throw new OptionError(
        'kvCache',
        `f32 or f16 (q8_0 takes head dimensions that are multiples of ${KV_BLOCK}, this model has ${spec.headDim})`,
        storage,
      );
    return this.#caches.push({ ...spec, storage }) - 1;
  }

  rope(table: RopeTable): RopeId {
    return this.#ropes.push(table) - 1;
  }

  /** Rows of the token embedding, times `scale`. [T, dim] */
  embedTokens(table: Weight, scale = 1): Rows {
    const out = this.#buffer('x', table.shape[1]!);
    this.#step({ op: 'embed', table: table.id, index: 'token', scale, add: false, out: out.id });
    return out;
  }

  /** x += rows of a token table, times `scale`. */
  addTokens(x: Rows, table: Weight, scale: number): void {
    this.#step({ op: 'embed', table: table.id, index: 'token', scale, add: true, out: x.id });
  }

  /** x += rows of a learned position table. */
  addPositions(x: Rows, table: Weight): void {
    this.#step({ op: 'embed', table: table.id, index: 'position', scale: 1, add: true, out: x.id });
  }

  /** x += rows of a table of token types. */
  addTypes(x: Rows, table: Weight): void {
    this.#step({ op: 'embed', table: table.id, index: 'type', scale: 1, add: true, out: x.id });
  }

  /** @param norm undefined: normalizes without a weight */
  rmsNorm(x: Rows, norm: Norm | undefined, eps: number, groups = 1): Rows {
    const out = this.#like('normed', x);
    this.#step({ op: 'norm', kind: 'rms', x: x.id, weight: norm?.weight.id, eps, groups, out: out.id });
    return out;
  }

  layerNorm(x: Rows, { weight, bias }: Norm, eps: number, groups = 1): Rows {
    const out = this.#like('normed', x);
    this.#step({ op: 'norm', kind: 'layer', x: x.id, weight: weight.id, bias: bias?.id, eps, groups, out: out.id });
    return out;
  }

  matmul(x: Rows, { weight, bias }: Linear): Rows {
    const out = this.#buffer('product', weight.shape[0]!, this.#buffers[x.id]!.rows);
    this.#step({ op: 'matmul', x: x.id, weight: weight.id, bias: bias?.id, add: false, out: out.id });
    return out;
  }

  /** into += x W + b */
  addMatmul(into: Rows, x: Rows, { weight, bias }: Linear): void {
    this.#step({ op: 'matmul', x: x.id, weight: weight.id, bias: bias?.id, add: true, out: into.id });
  }

  rotate(x: Rows, heads: number, table: RopeId): Rows {
    const out = this.#like('rotated', x);
    this.#step({ op: 'rope', x: x.id, heads, headDim: x.width / heads, table, out: out.id });
    return out;
  }

  /** Appends this forward's keys and values to the cache, then lets every row attend. [T, heads * headDim] */
  attention(q: Rows, k: Rows, v: Rows, cache: CacheId, heads: number, scale: number, options?: AttentionOptions): Rows {
    this.append(cache, k, v);
    return this.attend(q, cache, heads, scale, options);
  }

  append(cache: CacheId, k: Rows, v: Rows): void {
    this.#step({ op: 'appendKv', cache, k: k.id, v: v.id });
  }

  /** Attention over a cache that another step has appended to. [T, heads * headDim] */
  attend(q: Rows, cache: CacheId, heads: number, scale: number, options: AttentionOptions = {}): Rows {
    const out = this.#like('attended', q);
    this.#step({ op: 'attention', q: q.id, cache, heads, scale, ...options, out: out.id });
    return out;
  }

  /** into += the weighted outputs of the experts that `router` [T, experts] selects for x. */
  addExperts(into: Rows, x: Rows, router: Rows, experts: Experts): void {
    const { top, normalize, kind } = experts;
    const factors = experts.factors?.id;
    const ids = (of: 'gate' | 'up' | 'down'): WeightId[] => experts.each.map((expert) => expert[of].weight.id);
    const ffn = experts.each[0]!.gate.weight.shape[0]!;
    const work = {
      choice: this.#buffer('choice', 2 * top).id,
      gathered: this.#buffer('gathered', x.width).id,
      gate: this.#buffer('gate', ffn).id,
      up: this.#buffer('up', ffn).id,
      activated: this.#buffer('activated', ffn).id,
      result: this.#buffer('result', into.width).id,
    };
    const weights = { gate: ids('gate'), up: ids('up'), down: ids('down') };
    const chosen = { router: router.id, top, normalize, ...(factors !== undefined && { factors }) };
    this.#step({ op: 'experts', x: x.id, ...chosen, kind, ...weights, work, out: into.id });
  }

  activate(kind: Activation, x: Rows, up?: Rows): Rows {
    const out = this.#like('activated', x);
    this.#step({ op: 'activate', kind, x: x.id, up: up?.id, out: out.id });
    return out;
  }

  /** into += x * scale. Written to a new buffer, so that the step is idempotent and every thread may do all of it. */
  add(into: Rows, x: Rows, scale = 1): void {
    const { id } = this.#like('sum', into);
    this.#step({ op: 'add', base: into.id, x: x.id, scale, out: id });
    into.id = id;
  }

  /** A buffer of zeros with the shape of x, whose values must be finite. */
  zeros(x: Rows): Rows {
    const out = this.#like('zeros', x);
    this.#step({ op: 'add', base: x.id, x: x.id, scale: -1, out: out.id });
    return out;
  }

  /** x *= a number, or a weight with a single value. */
  scale(x: Rows, by: number | Weight): void {
    if (by === 1) return;
    const factor = typeof by === 'number' ? { factor: by } : { factor: 1, weight: by.id };
    this.#step({ op: 'scale', ...factor, out: x.id });
  }

  /** x = cap * tanh(x / cap) */
  cap(x: Rows, cap: number): void {
    this.#step({ op: 'cap', cap, out: x.id });
  }

  /** `width` columns of x. */
  columns(x: Rows, first: number, width: number): Rows {
    const out = this.#buffer('columns', width, this.#buffers[x.id]!.rows);
    this.#step({ op: 'columns', x: x.id, first, out: out.id });
    return out;
  }

  /** The wanted rows, those whose logits are computed. [W, dim] */
  wantedRows(x: Rows): Rows {
    const out = this.#buffer('wanted', x.width, 'wanted');
    this.#step({ op: 'select', x: x.id, out: out.id });
    return out;
  }

  /** The finished plan of a decoder. `weights` in the order of their ids. */
  finish(logits: Rows, weights: readonly PlannedWeight[]): Plan {
    const summary = this.#buffer('summary', 2 * Math.ceil(logits.width / SUMMARY_CHUNK), 'wanted');
    this.scope('projection', () => this.#step({ op: 'summarize', x: logits.id, out: summary.id }));
    return { ...this.finishEncoder(logits, weights), summary: summary.id };
  }

  /** The finished plan of an encoder. @param output its last hidden state [T, dim] */
  finishEncoder(output: Rows, weights: readonly PlannedWeight[]): Plan {
    return {
      buffers: this.#buffers,
      weights,
      caches: this.#caches,
      ropes: this.#ropes,
      steps: gatherProducts(this.#steps),
      output: output.id,
    };
  }

  #buffer(name: string, width: number, rows: RowBuffer['rows'] = 'all'): Rows {
    const id = this.#buffers.push({ name, width, rows }) - 1;
    return { id, width };
  }

  #like(name: string, x: Rows): Rows {
    return this.#buffer(name, x.width, this.#buffers[x.id]!.rows);
  }

  #step(step: Unscoped<Step>): void {
    this.#steps.push({ ...step, scope: this.#scopes.join('.') } as Step);
  }
}
