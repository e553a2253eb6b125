/** A mixture of experts as records: rows are grouped by expert, each expert works on its rows, results go back. */
import { selectKernel, selectRecord } from '../../../kernels/elementwise.ts';
import {
  groupKernel,
  groupRecord,
  routeKernel,
  routeRecord,
  scatterKernel,
  scatterRecord,
} from '../../../kernels/experts.ts';
import type { BufferId, StepOf, WeightId } from '../../../plan/step.ts';
import type { Access } from './barriers.ts';
import type { LoweringContext, StepRecord } from './context.ts';

/** Lowering of the steps that an expert consists of. */
interface Products extends LoweringContext {
  matmul(step: StepOf<'matmul'>): StepRecord[];
  activate(step: StepOf<'activate'>): StepRecord;
}

export function lowerExperts(g: Products, step: StepOf<'experts'>): StepRecord[] {
  const { work, out } = step;
  const { experts } = g.map;
  const routed = route(g, step);
  const parts = step.gate.flatMap((_, index) => {
    g.expert = { countAt: experts.counts + 4 * index };
    const entries = index * 4 * g.map.maxRows;
    const product = (weight: WeightId, x: BufferId, to: BufferId): StepRecord[] => {
      const made = g.matmul({ op: 'matmul', scope: step.scope, x, weight, add: false, out: to });
      g.wrote(to);
      return made;
    };
    const gathered = gather(g, step.x, work.gathered, experts.lists + entries);
    g.wrote(work.gathered);
    const gate = product(step.gate[index]!, work.gathered, work.gate);
    const up = product(step.up[index]!, work.gathered, work.up);
    const activated = g.activate({
      op: 'activate',
      scope: step.scope,
      kind: step.kind,
      x: work.gate,
      up: work.up,
      out: work.activated,
    });
    g.wrote(work.activated);
    const down = product(step.down[index]!, work.activated, work.result);
    const back = scatter(g, work.result, out, entries);
    const expert = g.expert;
    return [gathered, ...gate, ...up, activated, ...down, back].map((part) => ({ ...part, expert, run: index }));
  });
  g.expert = undefined;
  return [...routed, ...parts];
}

/** Chooses the experts of each row, then the rows of each expert. */
function route(g: Products, { router, top, normalize, factors, gate, work }: StepOf<'experts'>): StepRecord[] {
  const { experts, maxRows } = g.map;
  const shared = { experts: gate.length, top, rows: g.rows(router) };
  const route = g.kernels.index('experts', 'route', routeKernel);
  const choose = g.rowWise(
    work.choice,
    route,
    routeRecord.words({
      ...shared,
      x: g.at(router),
      out: g.at(work.choice),
      normalize: normalize ? 1 : 0,
      factors: factors === undefined ? 0 : g.vector(factors),
    }),
    [router],
  );
  const group: StepRecord = {
    kernel: g.kernels.index('experts', 'group', groupKernel),
    words: groupRecord.words({ ...shared, ...experts, choice: g.at(work.choice), listBytes: 4 * maxRows }),
    wanted: false,
    replicable: false,
    fence: false,
    reads: [g.access(work.choice, 'any')],
    writes: [expertLists(g)],
  };
  return [choose, group];
}

function expertLists(g: Products): Access {
  const { counts, shares } = g.map.experts;
  return { buffer: 'expert lists', start: counts, end: shares + 1, pattern: 'any' };
}

function gather(g: Products, x: BufferId, out: BufferId, indices: number): StepRecord {
  const kernel = g.kernels.index('rows', 'select', selectKernel);
  const words = selectRecord.words({
    x: g.at(x),
    out: g.at(out),
    indices,
    rows: g.rows(out),
    width: g.width(out),
  });
  return { ...g.rowWise(out, kernel, words, []), reads: [g.access(x, 'any'), expertLists(g)] };
}

/** Adds the results to the rows of `out`, multiplied by their shares. */
function scatter(g: Products, x: BufferId, out: BufferId, entries: number): StepRecord {
  const { lists, shares } = g.map.experts;
  const kernel = g.kernels.index('experts', 'scatter', scatterKernel);
  const words = scatterRecord.words({
    x: g.at(x),
    out: g.at(out),
    indices: lists + entries,
    shares: shares + entries,
    rows: g.rows(x),
    width: g.width(out),
  });
  const part = g.rowWise(out, kernel, words, [x], true);
  return { ...part, writes: [g.access(out, 'any')] };
}
