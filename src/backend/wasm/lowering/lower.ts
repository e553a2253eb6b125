/** Lowers the steps of a plan to records of the tape: kernels, arguments, accesses. */

import { activateKernel, activateRecord } from '../../../kernels/activate.ts';
import { appendKvKernel, appendKvName, appendKvRecord } from '../../../kernels/append-kv.ts';
import { attentionKernel, attentionName, attentionRecord } from '../../../kernels/attention.ts';
import {
  addKernel,
  addRecord,
  capKernel,
  capRecord,
  columnsKernel,
  columnsRecord,
  copyKernel,
  copyRecord,
  scaleKernel,
  scaleRecord,
  selectKernel,
  selectRecord,
} from '../../../kernels/elementwise.ts';
import { embedKernel, embedRecord } from '../../../kernels/embed.ts';
import { activationStride, groupBytes, groupsOf, stepsOf } from '../../../kernels/layout.ts';
import { matmulRecord } from '../../../kernels/matmul.ts';
import { normKernel, normName, normRecord } from '../../../kernels/norm.ts';
import { bitsOf, RECORD_BYTES } from '../../../kernels/record.ts';
import { ropeKernel, ropeRecord } from '../../../kernels/rope.ts';
import { summarizeKernel, summarizeRecord } from '../../../kernels/summarize.ts';
import { flags } from '../../../kernels/walker.ts';
import { rowBytes } from '../../../plan/memory.ts';
import { type Step, type StepOf, SUMMARY_CHUNK } from '../../../plan/step.ts';
import { productFamily, q8Layout } from '../choosing/choice.ts';
import { type Access, placeBarriers } from './barriers.ts';
import { countAt, LoweringContext, type LowerOptions, type StepRecord, type TapeRecord } from './context.ts';
import { lowerExperts } from './lower-experts.ts';

export interface Tape {
  /** Records of 64 bytes. */
  readonly words: Int32Array;
  /** Index of the step in the plan, per record. */
  readonly stepOf: readonly number[];
  /** The records that end a scope. */
  readonly scopeEnds: readonly number[];
}

/** The tape of a plan. Adds the kernels it needs to `kernels`. */
export function lower(options: LowerOptions): Tape {
  const lowering = new Lowering(options);
  const steps = options.plan.steps.flatMap((step, index) => lowering.step(step, index));
  const barriers = placeBarriers(steps);
  const words = new Int32Array((steps.length * RECORD_BYTES) / 4);
  const scopeOf = (record: TapeRecord | undefined) => record && options.plan.steps[record.step]!.scope;
  const scopeEnds = [...steps.keys()].filter((index) => scopeOf(steps[index]) !== scopeOf(steps[index + 1]));
  const ends = new Set(scopeEnds);
  steps.forEach((step, index) => {
    const { divided, many, replicated } = barriers[index]!;
    const flag =
      (divided ? flags.barrier : 0) |
      (many ? flags.barrierMany : 0) |
      (replicated ? flags.barrierAlways : 0) |
      (step.replicable ? flags.replicable : 0) |
      (step.wanted ? flags.wanted : 0) |
      (ends.has(index) ? flags.scopeEnd : 0) |
      (step.expert ? flags.skipsEmpty : 0);
    words.set([step.kernel, flag, ...step.words], (index * RECORD_BYTES) / 4);
    if (step.expert) words[((index + 1) * RECORD_BYTES) / 4 - 1] = step.expert.countAt;
  });
  return { words, stepOf: steps.map((step) => step.step), scopeEnds };
}

class Lowering extends LoweringContext {
  step(step: Step, index: number): TapeRecord[] {
    const lowered = this.#lower(step).map((part) => ({ ...part, step: index }));
    if ('out' in step) this.wrote(step.out);
    return lowered;
  }

  #lower(step: Step): StepRecord[] {
    switch (step.op) {
      case 'embed':
        return [this.#embed(step)];
      case 'norm':
        return [this.#norm(step)];
      case 'matmul':
        return this.matmul(step);
      case 'experts':
        return lowerExperts(this, step);
      case 'rope':
        return [this.#rope(step)];
      case 'appendKv':
        return [this.#appendKv(step)];
      case 'attention':
        return [this.#attention(step)];
      case 'activate':
        return [this.activate(step)];
      case 'add':
        return [this.#add(step)];
      case 'scale':
        return [this.#scale(step)];
      case 'cap':
        return [this.#cap(step)];
      case 'columns':
        return [this.#columns(step)];
      case 'select':
        return [this.#select(step)];
      case 'summarize':
        return [this.#summarize(step)];
      case 'tap':
        return [this.#tap(step)];
    }
  }

  #cache(id: number, pattern: Access['pattern']): Access {
    // Only these two kinds of steps access a cache, so any range that no buffer has will do.
    return { buffer: `cache ${id}`, start: -1 - id, end: -id, pattern };
  }
  #embed({ table, index, scale, add, out }: StepOf<'embed'>): StepRecord {
    const { storage, at, shape } = this.weight(table);
    const kernel = this.kernels.index('embed', `${storage} ${add}`, (m) =>
      embedKernel(m, { storage, q8: q8Layout(this.choice), adds: add }),
    );
    const words = embedRecord.words({
      table: at,
      out: this.at(out),
      rows: this.rows(out),
      indices: { token: this.map.tokens, position: this.map.positions, type: this.map.types }[index],
      width: shape[1]!,
      scale: bitsOf(scale),
    });
    return this.rowWise(out, kernel, words, add ? [out] : [], add);
  }

  #norm({ kind, x, weight, bias, eps, groups, out }: StepOf<'norm'>): StepRecord {
    const ownWeights = groups > 1 && weight !== undefined && this.weight(weight).shape[0] === this.width(x);
    const variant = { kind, weighted: weight !== undefined, biased: bias !== undefined };
    const kernel = this.kernels.index('norm', normName(variant), (m) => normKernel(m, variant));
    const words = normRecord.words({
      x: this.at(x),
      out: this.at(out),
      weight: this.vector(weight),
      bias: this.vector(bias),
      rows: this.rows(out),
      width: this.width(x),
      groups,
      weightStep: ownWeights ? (4 * this.width(x)) / groups : 0,
      eps: bitsOf(eps),
    });
    return this.rowWise(out, kernel, words, [x]);
  }

  matmul({ x, weight, bias, add, out }: StepOf<'matmul'>): StepRecord[] {
    const { storage, at, shape } = this.weight(weight);
    const [outputs, inputs] = shape as [number, number];
    const family = productFamily(storage, this.choice);
    const format = family.activation;
    const quantize = format ? this.quantize(x, format) : undefined;
    const kernel = this.kernels.index(`matmul_${storage}`, 'matmul', (m) => family.emit(m));
    const bytes = groupBytes(storage, inputs);
    const words = matmulRecord.words({
      x: quantize ? quantize.at : this.at(x),
      xStride: format ? activationStride(format, inputs) : rowBytes(inputs),
      w: at,
      groupBytes: bytes,
      bias: this.vector(bias),
      out: this.at(out),
      outStride: rowBytes(outputs),
      steps: stepsOf(storage, inputs),
      groups: groupsOf(outputs),
      rows: this.rows(out),
      add: add ? 1 : 0,
    });
    const product: StepRecord = {
      kernel,
      words,
      wanted: this.isWanted(out),
      replicable: false,
      claims: true,
      fence: false,
      reads: [quantize ? { ...quantize.access, pattern: 'any' } : this.access(x, 'any')],
      writes: [this.access(out, 'columns')],
    };
    return quantize?.part ? [quantize.part, product] : [product];
  }

  #appendKv({ cache, k, v }: StepOf<'appendKv'>): StepRecord {
    const head = this.plan.caches[cache]!;
    const { kvHeads } = head;
    const kernel = this.kernels.index('rows', appendKvName(head), (m) => appendKvKernel(m, head));
    const words = appendKvRecord.words({ ...this.#pages(cache), k: this.at(k), v: this.at(v), kvHeads });
    return {
      kernel,
      words,
      wanted: false,
      replicable: true,
      fence: false,
      reads: [this.access(k, 'rows'), this.access(v, 'rows')],
      writes: [this.#cache(cache, 'rows')],
    };
  }

  #attention({ q, cache, heads, scale, cap, alibi, bidirectional, out }: StepOf<'attention'>): StepRecord {
    const { kvHeads, headDim, storage, window = 0 } = this.plan.caches[cache]!;
    const shape = { headDim, storage, wide: this.choice.wide, cap, alibi, bidirectional };
    const kernel = this.kernels.index(attentionName(shape), 'attention', (m) => attentionKernel(m, shape));
    const words = attentionRecord.words({
      ...this.#pages(cache),
      q: this.at(q),
      out: this.at(out),
      heads,
      kvHeads,
      window,
      scale: bitsOf(scale),
    });
    return {
      kernel,
      words,
      wanted: false,
      replicable: false,
      fence: false,
      reads: [this.access(q, 'any'), this.#cache(cache, 'any')],
      writes: [this.access(out, 'any')],
    };
  }

  /** The arguments by which a kernel finds each row's pages. */
  #pages(cache: number) {
    const { sequences, positions, cache: pages, cacheOffsets, ...map } = this.map;
    const whole = this.plan.caches[cache]!.window === undefined;
    return {
      rows: countAt.rows,
      sequences,
      positions,
      tables: whole ? map.cellTables : map.tables,
      pageBase: pages + cacheOffsets[cache]!,
      pageStride: whole ? map.cellStride : map.pageStride,
    };
  }

  #rope({ x, heads, headDim, table, out }: StepOf<'rope'>): StepRecord {
    const kernel = this.kernels.index('rope', 'rope', ropeKernel);
    const { rotary } = this.plan.ropes[table]!;
    const words = ropeRecord.words({
      x: this.at(x),
      out: this.at(out),
      rows: this.rows(out),
      positions: this.map.rowNumbers,
      table: this.map.ropes[table]!,
      tableStride: rotary * 4,
      heads,
      headDim,
      rotary,
    });
    return this.rowWise(out, kernel, words, [x]);
  }

  activate({ kind, x, up, out }: StepOf<'activate'>): StepRecord {
    const gated = up !== undefined;
    const kernel = this.kernels.index('activate', `${kind} ${gated}`, (m) => activateKernel(m, kind, gated));
    const words = activateRecord.words({
      x: this.at(x),
      up: gated ? this.at(up) : 0,
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(out),
    });
    return this.columnWise(out, kernel, words, gated ? [x, up] : [x]);
  }

  #add({ base, x, scale, out }: StepOf<'add'>): StepRecord {
    const kernel = this.kernels.index('rows', 'add', addKernel);
    const words = addRecord.words({
      base: this.at(base),
      x: this.at(x),
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(out),
      scale: bitsOf(scale),
    });
    return this.rowWise(out, kernel, words, [base, x]);
  }

  #scale({ factor, weight, out }: StepOf<'scale'>): StepRecord {
    const from = weight === undefined ? 'record' : 'memory';
    const kernel = this.kernels.index('rows', `scale ${from}`, (m) => scaleKernel(m, from));
    const words = scaleRecord.words({
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(out),
      factor: weight === undefined ? bitsOf(factor) : this.vector(weight),
    });
    return this.rowWise(out, kernel, words, [out], true);
  }

  #cap({ cap, out }: StepOf<'cap'>): StepRecord {
    const kernel = this.kernels.index('rows', 'cap', capKernel);
    const words = capRecord.words({
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(out),
      cap: bitsOf(cap),
    });
    return this.rowWise(out, kernel, words, [out], true);
  }

  #columns({ x, first, out }: StepOf<'columns'>): StepRecord {
    const kernel = this.kernels.index('rows', 'columns', columnsKernel);
    const words = columnsRecord.words({
      x: this.at(x) + 4 * first,
      xWidth: this.width(x),
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(out),
    });
    return this.rowWise(out, kernel, words, [x]);
  }

  #select({ x, out }: StepOf<'select'>): StepRecord {
    const kernel = this.kernels.index('rows', 'select', selectKernel);
    const words = selectRecord.words({
      x: this.at(x),
      out: this.at(out),
      indices: this.map.wanted,
      rows: this.rows(out),
      width: this.width(out),
    });
    // From here on the number of wanted rows decides how steps are divided.
    return { ...this.rowWise(out, kernel, words, []), reads: [this.access(x, 'any')], fence: true };
  }

  #summarize({ x, out }: StepOf<'summarize'>): StepRecord {
    const kernel = this.kernels.index('summarize', 'summarize', (m) => summarizeKernel(m, SUMMARY_CHUNK));
    const words = summarizeRecord.words({
      x: this.at(x),
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(x),
    });
    return {
      kernel,
      words,
      wanted: this.isWanted(out),
      replicable: false,
      fence: false,
      reads: [this.access(x, 'any')],
      writes: [this.access(out, 'any')],
    };
  }

  #tap({ x, out }: StepOf<'tap'>): StepRecord {
    const kernel = this.kernels.index('rows', 'copy', copyKernel);
    const words = copyRecord.words({
      x: this.at(x),
      out: this.at(out),
      rows: this.rows(out),
      width: this.width(out),
    });
    return this.rowWise(out, kernel, words, [x]);
  }
}
