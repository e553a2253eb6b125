/** Defines every step in plain TypeScript: sums in f64, results rounded to f32 when stored in a buffer or cache. */
import { erfc, exp, tanh } from '../../numbers.ts';
import { ropeRow } from '../../plan/rope.ts';
import {
  type Activation,
  type KvCacheSpec,
  type Plan,
  type Step,
  type StepOf,
  SUMMARY_CHUNK,
  tableTokens,
} from '../../plan/step.ts';
import { dequantizeActivations, quantizeActivations } from '../../quant/activations.ts';
import { fromBF16, toBF16 } from '../../quant/bf16.ts';
import { asCached } from '../../quant/kv-cache.ts';
import { type Batch, sequenceLengths } from '../backend.ts';
import type { KvPages } from './kv-pages.ts';

/** A weight's values after quantization and dequantization. [out * in] or [n] */
export interface HeldWeight {
  readonly values: Float32Array;
  /** Whether activations multiplied by it are quantized in blocks of 32. */
  readonly quantized: boolean;
}

/** Data that the steps read and write. */
export interface State {
  readonly plan: Plan;
  readonly batch: Batch;
  /** One per buffer: [rows, width]. */
  readonly buffers: readonly Float32Array[];
  readonly weights: readonly HeldWeight[];
  readonly caches: readonly KvPages[];
}

export function runStep(step: Step, state: State): void {
  const run = meanings[step.op] as (step: Step, state: State) => void;
  run(step, state);
}

const meanings: { readonly [Op in Step['op']]: (step: StepOf<Op>, state: State) => void } = {
  embed,
  norm,
  matmul,
  experts,
  rope,
  appendKv,
  attention,
  activate,
  add,
  scale,
  cap: ({ cap, out }, { buffers }) => mapInPlace(buffers[out]!, (x) => capped(x, cap)),
  columns,
  select,
  summarize,
  tap: ({ x, out }, { buffers }) => buffers[out]!.set(buffers[x]!),
};

function add({ base, x, scale, out }: StepOf<'add'>, { buffers }: State): void {
  const [before, from, to] = [buffers[base]!, buffers[x]!, buffers[out]!];
  for (let i = 0; i < to.length; i++) to[i] = before[i]! + Math.fround(from[i]! * scale);
}

function scale({ factor, weight, out }: StepOf<'scale'>, { buffers, weights }: State): void {
  const by = Math.fround(weight === undefined ? factor : weights[weight]!.values[0]!);
  mapInPlace(buffers[out]!, (x) => x * by);
}

function mapInPlace(values: Float32Array, f: (x: number) => number): void {
  for (let i = 0; i < values.length; i++) values[i] = f(values[i]!);
}

const capped = (x: number, cap: number): number => cap * tanh(x / cap);

function columns({ x, first, out }: StepOf<'columns'>, state: State): void {
  const from = rowsOf(state, x);
  for (const [t, row] of rowsOf(state, out).entries()) row.set(from[t]!.subarray(first, first + row.length));
}

function select({ x, out }: StepOf<'select'>, state: State): void {
  const from = rowsOf(state, x);
  for (const [i, row] of rowsOf(state, out).entries()) row.set(from[state.batch.wanted[i]!]!);
}

function summarize({ x, out }: StepOf<'summarize'>, state: State): void {
  const results = rowsOf(state, out);
  for (const [t, row] of rowsOf(state, x).entries()) {
    for (let start = 0; start < row.length; start += SUMMARY_CHUNK) {
      const chunk = row.subarray(start, start + SUMMARY_CHUNK);
      const largest = chunk.reduce((a, b) => Math.max(a, b));
      const at = (2 * start) / SUMMARY_CHUNK;
      results[t]![at] = largest;
      results[t]![at + 1] = chunk.reduce((sum, value) => sum + exp(value - largest), 0);
    }
  }
}

/** Rows of a buffer as views. */
function rowsOf(state: State, buffer: number): Float32Array[] {
  const { width } = state.plan.buffers[buffer]!;
  const values = state.buffers[buffer]!;
  return Array.from({ length: values.length / width }, (_, row) => values.subarray(row * width, (row + 1) * width));
}

function embed({ table, index, scale, add, out }: StepOf<'embed'>, state: State): void {
  const { values } = state.weights[table]!;
  const { tokens, positions, types = new Int32Array(tokens.length) } = state.batch;
  const indices = { token: tableTokens(state.plan, tokens), position: positions, type: types }[index];
  for (const [t, row] of rowsOf(state, out).entries()) {
    const from = indices[t]! * row.length;
    for (let i = 0; i < row.length; i++) {
      const value = Math.fround(values[from + i]! * scale);
      row[i] = add ? row[i]! + value : value;
    }
  }
}

function norm({ kind, x, weight, bias, eps, groups, out }: StepOf<'norm'>, state: State): void {
  const w = weight === undefined ? undefined : state.weights[weight]!.values;
  const b = bias === undefined ? undefined : state.weights[bias]!.values;
  const results = rowsOf(state, out);
  for (const [t, row] of rowsOf(state, x).entries()) {
    const n = row.length / groups;
    for (let start = 0; start < row.length; start += n) {
      const own = w?.length === row.length ? start : 0;
      const part = row.subarray(start, start + n);
      const mean = kind === 'layer' ? part.reduce((sum, value) => sum + value, 0) / n : 0;
      const meanSquare = part.reduce((sum, value) => sum + (value - mean) ** 2, 0) / n;
      const inverse = 1 / Math.sqrt(meanSquare + eps);
      for (let i = 0; i < n; i++)
        results[t]![start + i] = (part[i]! - mean) * inverse * (w?.[own + i] ?? 1) + (b?.[i] ?? 0);
    }
  }
}

function matmul({ x, weight, bias, add, out }: StepOf<'matmul'>, state: State): void {
  const b = bias === undefined ? undefined : state.weights[bias]!.values;
  const results = rowsOf(state, out);
  for (const [t, row] of rowsOf(state, x).entries()) {
    const result = results[t]!;
    const sums = product(row, state.weights[weight]!);
    for (let n = 0; n < result.length; n++) result[n] = sums[n]! + (b?.[n] ?? 0) + (add ? result[n]! : 0);
  }
}

/** Sums over k of row[k] * w[n][k], in f64. */
function product(plain: Float32Array, { values, quantized }: HeldWeight): Float64Array {
  const row = quantized ? dequantizeActivations(quantizeActivations(plain)) : plain;
  return Float64Array.from({ length: values.length / row.length }, (_, n) =>
    dot(row, 0, values, n * row.length, row.length),
  );
}

function experts(step: StepOf<'experts'>, state: State): void {
  const [logits, results] = [rowsOf(state, step.router), rowsOf(state, step.out)];
  for (const [t, row] of rowsOf(state, step.x).entries()) {
    for (const { expert, share } of chooseExperts(logits[t]!, step.top, step.normalize)) {
      const factor = step.factors === undefined ? 1 : state.weights[step.factors]!.values[expert]!;
      const weight = (of: 'gate' | 'up' | 'down'): HeldWeight => state.weights[step[of][expert]!]!;
      const [gate, up] = [product(row, weight('gate')), product(row, weight('up'))];
      const inner = Float32Array.from(
        gate,
        (x, n) => Math.fround(functions[step.kind](Math.fround(x))) * Math.fround(up[n]!),
      );
      const down = product(inner, weight('down'));
      for (let n = 0; n < down.length; n++) results[t]![n]! += Math.fround(down[n]!) * (share * factor);
    }
  }
}

/** Sums over experts in ascending order of their index. */
function chooseExperts(logits: Float32Array, top: number, normalize: boolean): { expert: number; share: number }[] {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const weights = Array.from(logits, (logit) => exp(logit - largest));
  const chosen = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, top);
  const total = (normalize ? chosen.map((expert) => weights[expert]!) : weights).reduce((a, b) => a + b);
  return chosen.sort((a, b) => a - b).map((expert) => ({ expert, share: weights[expert]! / total }));
}

function rope({ x, heads, headDim, table, out }: StepOf<'rope'>, state: State): void {
  const spec = state.plan.ropes[table]!;
  const half = spec.rotary / 2;
  const angles = new Float32Array(spec.rotary);
  const lengths = sequenceLengths(state.batch);
  const results = rowsOf(state, out);
  for (const [t, row] of rowsOf(state, x).entries()) {
    const result = results[t]!;
    result.set(row);
    ropeRow(spec, state.batch.positions[t]!, lengths[state.batch.sequences[t]!]!, angles);
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < half; i++) {
        const [first, second] = [h * headDim + i, h * headDim + i + half];
        const [cos, sin] = [angles[i]!, angles[half + i]!];
        result[first] = row[first]! * cos - row[second]! * sin;
        result[second] = row[second]! * cos + row[first]! * sin;
      }
    }
  }
}

function appendKv({ cache, k, v }: StepOf<'appendKv'>, { plan, batch, buffers, caches }: State): void {
  const { kvHeads, headDim, storage } = plan.caches[cache]!;
  const width = kvHeads * headDim;
  const tables = tablesOf(batch, plan.caches[cache]!);
  for (let t = 0; t < batch.tokens.length; t++) {
    const entry = caches[cache]!.at(tables[batch.sequences[t]!]!, batch.positions[t]!);
    entry.k.set(asCached(storage, buffers[k]!.subarray(t * width, (t + 1) * width)));
    entry.v.set(asCached(storage, buffers[v]!.subarray(t * width, (t + 1) * width)));
  }
}

function attention(
  { q, cache, heads, scale, cap, alibi, bidirectional, out }: StepOf<'attention'>,
  state: State,
): void {
  const { batch, plan, caches } = state;
  const spec = plan.caches[cache]!;
  const ends = lastPositions(batch);
  const results = rowsOf(state, out);
  for (const [t, query] of rowsOf(state, q).entries()) {
    const position = batch.positions[t]!;
    const sequence = batch.sequences[t]!;
    const [first, last] = bidirectional ? visibleAround(spec, position, ends[sequence]!) : visible(spec, position);
    const pages = tablesOf(batch, spec)[sequence]!;
    const entries = Array.from({ length: last - first + 1 }, (_, i) => caches[cache]!.at(pages, first + i));
    for (let h = 0; h < heads; h++) {
      const at = Math.floor((h * spec.kvHeads) / heads) * spec.headDim;
      const scores = entries.map(({ k }, i) => {
        const score = dot(query, h * spec.headDim, k, at, spec.headDim) * scale;
        if (cap !== undefined) return capped(score, cap);
        return alibi ? score + roundToBf16(roundToBf16(alibi[h]!) * roundToBf16(first + i)) * scale : score;
      });
      const largest = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => exp(score - largest));
      const total = weights.reduce((a, b) => a + b);
      for (let d = 0; d < spec.headDim; d++) {
        const sum = entries.reduce((a, { v }, i) => a + weights[i]! * v[at + d]!, 0);
        results[t]![h * spec.headDim + d] = sum / total;
      }
    }
  }
}

/** Caches without a window have cells instead of pages. */
const tablesOf = ({ pages, cells = pages }: Batch, { window }: KvCacheSpec): readonly Int32Array[] =>
  window === undefined ? cells : pages;

const roundToBf16 = (x: number): number => fromBF16(toBF16(x));

/** First and last visible position: a window of W covers W keys including the row itself. */
const visible = ({ window }: KvCacheSpec, position: number): [number, number] => [
  window === undefined ? 0 : Math.max(0, position - window + 1),
  position,
];

/** First and last visible position for bidirectional attention: the window is centered. @param end last position of the sequence */
function visibleAround({ window }: KvCacheSpec, position: number, end: number): [number, number] {
  if (window === undefined) return [0, end];
  const side = (window - 1) / 2;
  return [Math.max(0, position - side), Math.min(end, position + side)];
}

/** Position of the last row of each sequence. */
function lastPositions({ pages, positions, sequences }: Batch): Int32Array {
  const last = new Int32Array(pages.length);
  for (const [row, sequence] of sequences.entries()) last[sequence] = positions[row]!;
  return last;
}

function dot(a: Float32Array, aStart: number, b: Float32Array, bStart: number, length: number): number {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[aStart + i]! * b[bStart + i]!;
  return sum;
}

const functions: Readonly<Record<Activation, (x: number) => number>> = {
  /** x times the normal distribution function. */
  gelu: (x) => 0.5 * x * erfc(-x * Math.SQRT1_2),
  /** Hendrycks and Gimpel 2016, arXiv:1606.08415. */
  gelu_tanh: (x) => 0.5 * x * (1 + tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + exp(-x)),
  relu: (x) => Math.max(x, 0),
};

function activate({ kind, x, up, out }: StepOf<'activate'>, { buffers }: State): void {
  const f = functions[kind];
  const [from, factor, to] = [buffers[x]!, up === undefined ? undefined : buffers[up]!, buffers[out]!];
  for (let i = 0; i < to.length; i++) to[i] = Math.fround(f(from[i]!)) * (factor?.[i] ?? 1);
}
