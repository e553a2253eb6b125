/**
 * Times of one forward by scope.
 *
 * Every step of a plan has a dotted scope (`layer[3].attention`). The step times of a forward are summed into a tree of
 * scopes, from which log lines, the step table and JSON are made.
 */

/** The fields of a plan's step that are used here. */
export interface ScopedStep {
  readonly scope: string;
  readonly op: string;
}

/** Milliseconds of one step; `step` is its index in the plan. */
export interface StepMilliseconds {
  readonly step: number;
  readonly ms: number;
}

export interface ScopeTime {
  /** Last part of the path: `attention`. The root is `model`. */
  readonly name: string;
  /** `layer[3].attention`; empty for the root. */
  readonly path: string;
  /** Sum over all steps in this scope and the scopes below it. */
  readonly ms: number;
  /** In the order of the plan. */
  readonly children: readonly ScopeTime[];
}

/** The columns of the step table, in milliseconds. */
export interface PhaseTimes {
  readonly embedding: number;
  readonly layers: number;
  readonly norm: number;
  readonly projection: number;
  /** All steps, including those outside the four phases. */
  readonly total: number;
}

export type ScopeTimer = (times: readonly StepMilliseconds[]) => ScopeTime;

interface Node {
  readonly name: string;
  readonly path: string;
  readonly index: number;
  readonly children: Node[];
}

/** Parses the scopes of a plan's steps once; the timer it returns then only sums numbers for each forward. */
export function createScopeTimer(steps: readonly ScopedStep[]): ScopeTimer {
  const root: Node = { name: 'model', path: '', index: 0, children: [] };
  const nodes = new Map<string, Node>([['', root]]);
  const nodeAt = (path: string): Node => {
    const known = nodes.get(path);
    if (known) return known;
    const dot = path.lastIndexOf('.');
    const parent = nodeAt(path.slice(0, Math.max(dot, 0)));
    const node: Node = { name: path.slice(dot + 1), path, index: nodes.size, children: [] };
    nodes.set(path, node);
    parent.children.push(node);
    return node;
  };
  const nodeOfStep = steps.map(({ scope }) => nodeAt(scope).index);
  const own = new Float64Array(nodes.size);

  const sum = ({ name, path, index, children }: Node): ScopeTime => {
    const below = children.map(sum);
    return { name, path, ms: below.reduce((ms, child) => ms + child.ms, own[index]!), children: below };
  };
  return (times) => {
    own.fill(0);
    for (const { step, ms } of times) own[nodeOfStep[step]!]! += ms;
    return sum(root);
  };
}

/** Whether a scope is a whole layer: `layer[0]`, `layer[1]`, ... */
export const isLayer = ({ name }: ScopeTime): boolean => name.startsWith('layer[');

export function phasesOf(tree: ScopeTime): PhaseTimes {
  const ms = (belongs: (child: ScopeTime) => boolean): number =>
    tree.children.reduce((sum, child) => sum + (belongs(child) ? child.ms : 0), 0);
  return {
    embedding: ms(({ name }) => name === 'embedding'),
    layers: ms(isLayer),
    norm: ms(({ name }) => name === 'norm'),
    projection: ms(({ name }) => name === 'projection'),
    total: tree.ms,
  };
}
