/**
 * The weights manifest: an architecture requests each weight by its name in the plan and in the file. Missing, unused
 * and wrongly shaped tensors are reported in one error.
 */
import type { Linear, Norm, Weight } from '../plan/builder.ts';
import type { PlannedWeight, WeightRole, WeightSource } from '../plan/step.ts';
import { storageBytes } from '../quant/storage.ts';
import { type ModelOrigin, STACKED, type Stored, stackedTensor, storedAs, type TensorShape } from './file-tensors.ts';
import type { Fused, MatrixOptions, Slice } from './matrix-options.ts';
import { Mismatches } from './mismatches.ts';
import { type Decision, decide, isPlan, names, type StorageChoice } from './policy.ts';
import { checkNames } from './storage-plan.ts';

export type { ModelOrigin, TensorShape } from './file-tensors.ts';

export interface ManifestOptions {
  /** The file and its tensor names, for messages. */
  readonly origin?: ModelOrigin;
  /** Maps the architecture's tensor names to those in WeightSource. Default: unchanged. */
  readonly sourceOf?: (tensor: string) => string;
  /** Whether a tensor may be left unused. */
  readonly spare?: (tensor: string, used: ReadonlySet<string>) => boolean;
}

export class Manifest {
  readonly #tensors: ReadonlyMap<string, TensorShape>;
  readonly #choice: StorageChoice;
  readonly #options: ManifestOptions;
  readonly #spared: string[] = [];
  readonly #weights: PlannedWeight[] = [];
  readonly #used = new Set<string>();
  readonly #problems: Mismatches;

  constructor(tensors: ReadonlyMap<string, TensorShape>, choice: StorageChoice, options: ManifestOptions = {}) {
    this.#tensors = tensors;
    this.#choice = choice;
    this.#options = options;
    this.#problems = new Mismatches(options.origin?.file ?? 'config.json');
  }

  /** After `finish`: names in the file of the tensors left unused. */
  get spared(): readonly string[] {
    return this.#spared;
  }

  has(tensor: string): boolean {
    return this.#tensors.has(tensor);
  }

  shapeOf(tensor: string): readonly number[] | undefined {
    return this.#tensors.get(tensor)?.shape;
  }

  /** A matrix [out, in], stored according to the policy or plan. */
  matrix(
    name: string,
    role: WeightRole,
    tensor: string,
    shape: readonly [number, number],
    options: MatrixOptions = {},
  ): Weight {
    const { slice, stack } = options;
    const transposed = (options.transposed ?? false) !== (this.#tensors.get(tensor)?.transposed ?? false);
    const rows = slice?.of ?? shape[0];
    const own = transposed ? [shape[1], rows] : [rows, shape[1]];
    const dtype = this.#find(tensor, stack ? [stack.count, ...own] : own);
    const linear = role === 'attention' || role === 'ffn' || role === 'output';
    // In a stack [stack, out, in] a matrix is a range of rows. A transposed one is read as a tensor of its own.
    const before = stack && !transposed ? stack.index * rows : 0;
    const place = stack && transposed ? stackedTensor(tensor, stack.index) : tensor;
    const source = { tensor: place, transposed, first: (slice?.first ?? 0) + before, runs: slice?.runs, plus: 0 };
    return this.#add(name, role, shape, source, this.#decide(name, role, shape, dtype), linear);
  }

  /** A vector, kept in f32. @param plus added to every value (Gemma's 1 + w) */
  vector(
    name: string,
    role: WeightRole,
    tensor: string,
    length: number,
    options: { plus?: number; slice?: Slice } = {},
  ): Weight {
    this.#find(tensor, [options.slice?.of ?? length]);
    const { slice } = options;
    const plus = (options.plus ?? 0) - (this.#tensors.get(tensor)?.plus ?? 0);
    const source = { tensor, transposed: false, first: slice?.first ?? 0, runs: slice?.runs, plus };
    return this.#add(name, role, [length], source, { storage: 'f32', reason: 'vectors stay in f32' }, false);
  }

  /** A vector concatenated from several tensors of equal length. */
  joined(name: string, role: WeightRole, tensors: readonly string[], length: number): Weight {
    const [first, ...following] = tensors as [string, ...string[]];
    for (const tensor of tensors) this.#find(tensor, [length / tensors.length]);
    if (new Set(tensors.map((tensor) => this.#tensors.get(tensor)?.dtype)).size > 1)
      this.#problems.add(`${first}: expected one dtype for all ${tensors.length}`);
    const source = { tensor: first, transposed: false, first: 0, plus: 0, following };
    return this.#add(name, role, [length], source, { storage: 'f32', reason: 'vectors stay in f32' }, false);
  }

  /** A linear layer `tensor.weight`, with `tensor.bias` if requested. */
  linear(
    name: string,
    role: WeightRole,
    tensor: string,
    shape: readonly [number, number],
    bias: boolean,
    options: MatrixOptions = {},
  ): Linear {
    const weight = this.matrix(name, role, `${tensor}.weight`, shape, options);
    return bias
      ? { weight, bias: this.vector(`${name}.bias`, 'bias', `${tensor}.bias`, shape[0], { slice: options.slice }) }
      : { weight };
  }

  /** The linear layers `name.KEY` of a fused tensor; the policy decides each by itself. */
  fused<Name extends string>(
    name: string,
    role: WeightRole,
    tensor: string,
    { inputs, bias, rows, parts = 1, transposed }: Fused<Name>,
  ): Record<Name, Linear> {
    const sizes = Object.entries(rows) as [Name, number][];
    const of = sizes.reduce((sum, [, count]) => sum + count, 0);
    let first = 0;
    const layers = sizes.map(([key, count]) => {
      const share = count / parts;
      const slice = { first, of, runs: parts > 1 ? { rows: share, stride: of / parts } : undefined };
      first += share;
      return [key, this.linear(`${name}.${key}`, role, tensor, [count, inputs], bias, { slice, transposed })];
    });
    return Object.fromEntries(layers);
  }

  norm(name: string, tensor: string, length: number, options: { bias?: boolean; plus?: number } = {}): Norm {
    const weight = this.vector(name, 'norm', `${tensor}.weight`, length, { plus: options.plus });
    return options.bias ? { weight, bias: this.vector(`${name}.bias`, 'bias', `${tensor}.bias`, length) } : { weight };
  }

  /**
   * The token embedding and the output head, which are the same tensor. It is stored once, as the policy stores the
   * head, unless the policy names another storage for the embedding.
   */
  tied(tensor: string, shape: readonly [number, number]): { embedding: Weight; output: Linear } {
    const dtype = this.#find(tensor, shape);
    const source = { tensor, transposed: false, first: 0, plus: 0 };
    const asks = (name: 'embedding' | 'output'): boolean => names(this.#choice, name, name);
    // A plan that names one of the two means both.
    const single = isPlan(this.#choice) && asks('embedding') && !asks('output');
    const head = this.#decide(single ? 'embedding' : 'output', 'output', shape, dtype);
    const asked = asks('embedding') ? this.#decide('embedding', 'embedding', shape, dtype) : undefined;
    if (asked && asked.storage !== head.storage) {
      const embedding = this.#add('embedding', 'embedding', shape, source, asked, false);
      return { embedding, output: { weight: this.#add('output', 'output', shape, source, head, true) } };
    }
    const embedding = this.#add(
      'embedding',
      'embedding',
      shape,
      source,
      { ...head, reason: 'shared with the output head' },
      false,
    );
    const output = this.#add('output', 'output', shape, source, head, true, embedding);
    return { embedding, output: { weight: output } };
  }

  /** Allows tensors that files may have and no forward needs. */
  ignore(pattern: RegExp): void {
    for (const name of this.#tensors.keys()) if (pattern.test(name)) this.#used.add(name);
  }

  /** @throws ModelError that names every missing, wrongly shaped and unknown tensor, up to 100 */
  finish(): readonly PlannedWeight[] {
    for (const [name, { shape }] of this.#tensors) {
      if (this.#used.has(name)) continue;
      if (this.#options.spare?.(name, this.#used)) this.#spared.push(this.#nameOf(name));
      else this.#problems.add(`${this.#nameOf(name)}: not expected, found [${shape.join(', ')}]`);
    }
    this.#problems.check();
    if (isPlan(this.#choice)) checkNames(this.#choice, this.#weights);
    return this.#weights;
  }

  #decide(name: string, role: WeightRole, shape: readonly [number, number], { storage, instead }: Stored): Decision {
    const decision = decide(this.#choice, { name, role, shape, stored: storage });
    return instead !== undefined && decision.storage === storage ? { storage, reason: instead } : decision;
  }

  #nameOf(tensor: string): string {
    return this.#options.origin?.nameOf(tensor) ?? tensor;
  }

  #placed(source: WeightSource): WeightSource {
    const { sourceOf } = this.#options;
    if (sourceOf === undefined) return source;
    const { tensor, following } = source;
    const [whole, ...part] = tensor.split(STACKED);
    const place = [sourceOf(whole!), ...part].join(STACKED);
    return { ...source, tensor: place, ...(following && { following: following.map(sourceOf) }) };
  }

  /** Storage of a tensor. If it does not fit, adds a problem and returns f32. */
  #find(tensor: string, expected: readonly number[]): Stored {
    this.#used.add(tensor);
    const found = this.#tensors.get(tensor);
    const wanted = `[${expected.join(', ')}]`;
    const problem = (what: string): Stored => {
      this.#problems.add(`${this.#nameOf(tensor)}: expected ${wanted}, ${what}`);
      return { storage: 'f32' };
    };
    if (!found) return problem('missing');
    if (found.shape.length !== expected.length || found.shape.some((n, i) => n !== expected[i]))
      return problem(`found [${found.shape.join(', ')}]`);
    return storedAs(found.dtype) ?? problem(`found dtype ${found.dtype}, which cannot hold weights`);
  }

  #add(
    name: string,
    role: WeightRole,
    shape: readonly number[],
    source: WeightSource,
    { storage, reason }: Decision,
    linear: boolean,
    shares?: Weight,
  ): Weight {
    const [rows, columns] = shape as [number, number?];
    const bytes = shares ? 0 : columns === undefined ? rows * 4 : rows * storageBytes(storage, columns);
    const id = this.#weights.push({
      name,
      role,
      shape,
      source: this.#placed(source),
      storage,
      linear,
      reason,
      bytes,
      shares: shares?.id,
    });
    return { id: id - 1, shape };
  }
}
