/** Finds where the forwards of two models part: the layer, the step within it, and the token. */
import type { Model } from '../engine/model.ts';
import { checkSameTokens } from '../engine/same-tokens.ts';
import { OptionError } from '../errors.ts';
import { weightsOf } from '../plan/memory.ts';
import { describeWork } from '../plan/print.ts';
import type { Plan } from '../plan/step.ts';
import { inScope, layerOf, type TapChoice } from '../plan/taps.ts';
import { pairedRows } from './paired.ts';
import type { EvaluationOptions } from './perplexity.ts';
import { type Difference, DifferenceMeter } from './row-difference.ts';
import { notComparable, tokensOf } from './windows.ts';

/** Loads a model so that forwards keep these rows. It is disposed by the comparison. */
export type OpenModel = (taps: TapChoice) => Promise<Model>;

export interface CompareOptions extends Pick<EvaluationOptions, 'maxTokens' | 'onProgress' | 'signal'> {
  /** Relative error of a row, |a - b| / |a|, above which two models part. Default 0.01. */
  readonly tolerance?: number | undefined;
}

/** Rows between two layers. */
export interface LayerDifference extends Difference {
  /** `hidden.0` is the embedding, `hidden.3` the result of layer 2, `final` the input of the output head, then `logits`. */
  readonly name: string;
  /** Scope of the steps between these rows and those before: `embedding`, `layer[2]`, `norm`, `projection`. */
  readonly scope: string;
}

/** The result of a step of the plan. */
export interface StepDifference extends Difference {
  /** Number of the step, as `lanewise plan --steps` prints it. */
  readonly step: number;
  readonly scope: string;
  /** What the step does, with the storages of its weight in A and B. */
  readonly work: string;
}

export interface PartingToken {
  readonly position: number;
  readonly id: number;
  readonly text: string | undefined;
}

/** A place in the forward, with the first token at which it is reached. */
export interface Parting {
  readonly layer: LayerDifference;
  /** The first such step of this layer; undefined if no single step is, or the models have other steps. */
  readonly step?: StepDifference | undefined;
  readonly token: PartingToken;
}

/** Where an error comes from, if it is within the tolerance at first or everywhere. */
export interface Growth {
  readonly scope: string;
  /** Relative error of the rows before and after. */
  readonly before: number;
  readonly after: number;
}

export interface Comparison {
  readonly tokens: number;
  readonly tolerance: number;
  readonly layers: readonly LayerDifference[];
  /** Where rows are beyond the tolerance first; undefined if all are within it. */
  readonly parting?: Parting | undefined;
  /** Where rows differ at all first; undefined if none do. Its step is known if the models part. */
  readonly origin?: Parting | undefined;
  /** The place at which the error of all rows grows most; undefined if no values differ. */
  readonly growth?: Growth | undefined;
  /** If they part, the steps of the layer where they part, and those of the layer where rows differ first. */
  readonly steps: readonly StepDifference[];
}

/** Default of `maxTokens`: enough to see every layer at work. */
const TOKENS = 256;
const TOLERANCE = 0.01;

/**
 * Runs two models side by side over the beginning of a text: first the hidden states of all layers, then, loaded again, the steps
 * of the layer where they part. Few rows are in memory at a time.
 * @throws OptionError; LanewiseError NotComparable for models with other tokens, layers or widths
 */
export async function compareModels(
  openA: OpenModel,
  openB: OpenModel,
  text: string | readonly number[],
  { tolerance = TOLERANCE, maxTokens = TOKENS, onProgress, signal }: CompareOptions = {},
): Promise<Comparison> {
  if (!(typeof tolerance === 'number' && tolerance >= 0))
    throw new OptionError('tolerance', 'a number >= 0', tolerance);
  const first = await withBoth(openA, openB, 'hidden', async (a, b) => {
    checkComparable(a, b);
    const most = Math.min(maxTokens, a.contextLength, b.contextLength);
    const ids = tokensOf(a, text, { maxTokens: most });
    const names = [...tapNames(a.description.plan), 'logits'];
    const found = await measure(a, b, ids, names, { tolerance, signal, onProgress, logits: true });
    const layers = names.map((name, i): LayerDifference => ({ name, scope: scopeBefore(names, i), ...found[i]! }));
    // A disposed model has no tokenizer.
    const { tokenizer } = a;
    return { ids, layers, textOf: (id: number) => tokenizer?.decode([id]) };
  });
  const { ids, layers, textOf } = first;
  const [beyond, different] = [layers.find(isBeyond), layers.find(differs)];
  const whole = { tokens: ids.length, tolerance, layers, growth: growthOf(layers) };
  const at = (position: number): PartingToken => ({ position, id: ids[position]!, text: textOf(ids[position]!) });
  const place = (layer: LayerDifference, steps: readonly StepDifference[], reached: Reached): Parting => {
    const step = steps.find((one) => inScope(one.scope, layer.scope) && reached(one));
    return { layer, step, token: at(reached(step ?? layer)!.position) };
  };
  const steps: StepDifference[] = [];
  for (const scope of beyond ? new Set([different!.scope, beyond.scope]) : []) {
    const own = (a: Model, b: Model) => measureSteps(a, b, ids, scope, { tolerance, signal });
    steps.push(...(await withBoth(openA, openB, { steps: scope }, own)));
  }
  return {
    ...whole,
    steps,
    parting: beyond && place(beyond, steps, isBeyond),
    origin: different && place(different, steps, differs),
  };
}

/** The row at which a difference reaches something, if it does. */
type Reached = (difference: Difference) => { readonly position: number } | undefined;
const isBeyond: Reached = ({ first }) => (first === undefined ? undefined : { position: first });
const differs: Reached = ({ differs }) => (differs === undefined ? undefined : { position: differs });

function growthOf(layers: readonly LayerDifference[]): Growth | undefined {
  const growths = layers.map(({ scope, error }, i) => ({ scope, before: layers[i - 1]?.error ?? 0, after: error }));
  const most = growths.reduce((best, one) => (one.after - one.before > best.after - best.before ? one : best));
  return most.after > most.before ? most : undefined;
}

async function withBoth<T>(
  openA: OpenModel,
  openB: OpenModel,
  taps: TapChoice,
  work: (a: Model, b: Model) => Promise<T>,
): Promise<T> {
  const a = await openA(taps);
  try {
    const b = await openB(taps);
    try {
      return await work(a, b);
    } finally {
      await b.dispose();
    }
  } finally {
    await a.dispose();
  }
}

/** @throws OptionError; LanewiseError NotComparable */
function checkComparable(a: Model, b: Model): void {
  const [first, second] = [a.description.config, b.description.config];
  for (const name of ['layers', 'dim', 'vocab'] as const)
    if (first[name] !== second[name])
      throw notComparable(
        `B must have as many ${{ layers: 'layers', dim: 'values per hidden state', vocab: 'tokens' }[name]} as A, ${first[name]}, found ${second[name]}: rows of both are compared`,
      );
  const tokens = ({ name, description, tokenizer }: Model) => ({ name, vocab: description.config.vocab, tokenizer });
  checkSameTokens(tokens(a), tokens(b), 'B');
}

const tapNames = ({ steps }: Plan): string[] => steps.flatMap((step) => (step.op === 'tap' ? [step.name] : []));

/** @param names of rows in the order of a forward: hidden.0 .. hidden.L, final, logits */
function scopeBefore(names: readonly string[], index: number): string {
  const name = names[index]!;
  if (name === 'logits') return 'projection';
  if (name === 'final') return 'norm';
  return index === 0 ? 'embedding' : `layer[${index - 1}]`;
}

interface MeasureOptions extends Pick<CompareOptions, 'onProgress' | 'signal'> {
  readonly tolerance: number;
  readonly logits?: boolean;
}

async function measure(
  a: Model,
  b: Model,
  ids: readonly number[],
  names: readonly string[],
  { tolerance, onProgress, signal, logits = false }: MeasureOptions,
): Promise<Difference[]> {
  const meters = names.map(() => new DifferenceMeter(tolerance));
  const forward = (model: Model) => model.forward(ids, { logits, ...(signal && { signal }) });
  for await (const { start, count, ...rows } of pairedRows(forward(a), forward(b))) {
    for (const [i, name] of names.entries()) meters[i]!.add(rows.a(name)!, rows.b(name)!, start, count);
    onProgress?.(start + count, ids.length);
  }
  return meters.map((meter) => meter.difference());
}

/** Compares the steps of a scope; none if the models have other steps there. */
async function measureSteps(
  a: Model,
  b: Model,
  ids: readonly number[],
  scope: string,
  options: MeasureOptions,
): Promise<StepDifference[]> {
  const [ours, theirs] = [tappedSteps(a.description.plan, scope), tappedSteps(b.description.plan, scope)];
  const same = ours.length === theirs.length && ours.every(({ shape }, i) => shape === theirs[i]!.shape);
  if (!same) return [];
  const found = await measure(
    a,
    b,
    ids,
    ours.map(({ tap }) => tap),
    options,
  );
  return ours.map(({ step, scope, work, storage }, i): StepDifference => {
    const other = theirs[i]!.storage;
    return { step, scope, work: storage === other ? work : `${work}, in B ${other}`, ...found[i]! };
  });
}

/** Steps of a scope with their taps, numbered as in the plan without taps. */
function tappedSteps(plan: Plan, scope: string) {
  let step = -1;
  return plan.steps.flatMap((own, index) => {
    if (own.op === 'tap') return [];
    step++;
    const tap = plan.steps[index + 1];
    if (!inScope(own.scope, scope) || tap?.op !== 'tap') return [];
    const { text } = describeWork(plan, index, 'T', 'W');
    const shape = `${own.op} ${own.scope} ${plan.buffers[tap.x]!.width}`;
    const [weight] = weightsOf(own).map((id) => plan.weights[plan.weights[id]!.shares ?? id]!);
    return [{ step, scope: own.scope, tap: tap.name, shape, storage: weight?.storage, work: `${own.op} ${text}` }];
  });
}

/** `layer 1`, or the scope itself. */
export function scopeName(scope: string): string {
  const layer = layerOf(scope);
  return layer === undefined ? scope : `layer ${layer}`;
}
