/**
 * Chooses one option per unit so that the sum of their costs is least while the sum of their weights keeps a limit: the
 * multiple-choice knapsack problem, by dynamic programming over weights. Exact if weights are whole multiples of a unit
 * that gives few enough states; otherwise weights are rounded up to a grid, so that the limit is kept, and the weight left
 * over is filled greedily.
 */

export interface Option {
  /** Not negative. To be least in sum, such as a divergence. */
  readonly cost: number;
  /** Not negative. Limited in sum, such as bytes. */
  readonly weight: number;
}

export interface Solution {
  /** Chosen option of each unit. */
  readonly picks: readonly number[];
  readonly cost: number;
  readonly weight: number;
}

/** Most states times units: one byte each. */
const MOST_CELLS = 2 ** 26;
/** Grid of weights that are no integers. */
const FINE = 2 ** 15;

/** The least cost for every weight. */
export class Frontier {
  /** Whether no weight was rounded: then solutions are optimal. */
  readonly exact: boolean;
  readonly #units: readonly (readonly Option[])[];
  readonly #least: number;
  readonly #grid: number;
  readonly #states: number;
  /** Least cost within each state's weight. */
  readonly #costs: Float64Array;
  /** Chosen option by unit and state. */
  readonly #chosen: readonly Uint8Array[];

  /** @param units at most 255 options each, at least one @param most weights above it are of no interest */
  constructor(units: readonly (readonly Option[])[], most = Number.POSITIVE_INFINITY) {
    this.#units = units;
    const least = units.map((options) => Math.min(...options.map(({ weight }) => weight)));
    const largest = units.reduce((sum, options) => sum + Math.max(...options.map(({ weight }) => weight)), 0);
    this.#least = least.reduce((sum, weight) => sum + weight, 0);
    const range = Math.max(0, Math.min(most, largest) - this.#least);
    const extra = units.map((options, i) => options.map(({ weight }) => weight - least[i]!));
    const { grid, exact } = gridOf(extra.flat(), range, units.length);
    this.#grid = grid;
    this.exact = exact;
    this.#states = Math.floor(range / grid) + 1;
    this.#chosen = units.map(() => new Uint8Array(this.#states));
    // Rounded down here, for the sums of rounded weights may differ by an error of floating point.
    const steps = extra.map((weights) => weights.map((weight) => Math.ceil(weight / grid - 1e-9)));
    this.#costs = this.#solve(steps);
  }

  /** The least possible weight. */
  get leastWeight(): number {
    return this.#least;
  }

  /** The least cost within a weight; undefined if no choice keeps it. */
  within(limit: number): Solution | undefined {
    if (limit < this.#least * (1 - 1e-12)) return undefined;
    const state = Math.min(this.#states - 1, Math.floor((limit - this.#least) / this.#grid + 1e-9));
    const found = this.#picksAt(Math.max(0, state));
    return this.exact ? found : this.#fill(found, limit);
  }

  /** The least weight that reaches a cost; undefined if none does. */
  reaching(cost: number): Solution | undefined {
    const allowed = cost * (1 + 1e-12);
    if (!(this.#costs[this.#states - 1]! <= allowed)) return undefined;
    // Costs fall with the weight.
    let [low, high] = [0, this.#states - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#costs[middle]! <= allowed) high = middle;
      else low = middle + 1;
    }
    return this.#picksAt(low);
  }

  /** About `count` solutions from the least weight to the largest. */
  curve(count: number): Solution[] {
    const points: Solution[] = [];
    for (let n = 0; n < count; n++) {
      const state = Math.round((n * (this.#states - 1)) / Math.max(1, count - 1));
      const point = this.#picksAt(state);
      if (point.cost < (points.at(-1)?.cost ?? Number.POSITIVE_INFINITY)) points.push(point);
    }
    return points;
  }

  #solve(steps: readonly (readonly number[])[]): Float64Array {
    const states = this.#states;
    let before = new Float64Array(states);
    for (const [u, options] of this.#units.entries()) {
      const costs = new Float64Array(states).fill(Number.POSITIVE_INFINITY);
      const chosen = this.#chosen[u]!;
      for (const [o, { cost }] of options.entries()) {
        const step = steps[u]![o]!;
        for (let state = step; state < states; state++) {
          const sum = before[state - step]! + cost;
          if (sum < costs[state]!) {
            costs[state] = sum;
            chosen[state] = o;
          }
        }
      }
      before = costs;
    }
    return before;
  }

  #picksAt(state: number): Solution {
    const picks = this.#units.map(() => 0);
    let left = state;
    for (let u = this.#units.length - 1; u >= 0; u--) {
      const pick = this.#chosen[u]![left]!;
      picks[u] = pick;
      const least = Math.min(...this.#units[u]!.map(({ weight }) => weight));
      left -= Math.ceil((this.#units[u]![pick]!.weight - least) / this.#grid - 1e-9);
    }
    return sumOf(this.#units, picks);
  }

  /** Takes the change that saves most cost per weight, as long as one fits. */
  #fill(start: Solution, limit: number): Solution {
    let found = start;
    for (;;) {
      let best: { unit: number; option: number; gain: number } | undefined;
      for (const [unit, options] of this.#units.entries()) {
        const now = options[found.picks[unit]!]!;
        for (const [option, { cost, weight }] of options.entries()) {
          if (cost >= now.cost || found.weight + weight - now.weight > limit) continue;
          const gain = (now.cost - cost) / Math.max(weight - now.weight, 1e-9 * this.#grid);
          if (best === undefined || gain > best.gain) best = { unit, option, gain };
        }
      }
      if (best === undefined) return found;
      const { unit, option } = best;
      found = sumOf(
        this.#units,
        found.picks.map((pick, u) => (u === unit ? option : pick)),
      );
    }
  }
}

export function sumOf(units: readonly (readonly Option[])[], picks: readonly number[]): Solution {
  const chosen = picks.map((pick, u) => units[u]![pick]!);
  return {
    picks,
    cost: chosen.reduce((sum, { cost }) => sum + cost, 0),
    weight: chosen.reduce((sum, { weight }) => sum + weight, 0),
  };
}

/** The unit of weights, and whether all are multiples of it. */
function gridOf(weights: readonly number[], range: number, units: number): { grid: number; exact: boolean } {
  const mostStates = Math.max(2, Math.floor(MOST_CELLS / Math.max(1, units)));
  if (weights.every(Number.isSafeInteger)) {
    const unit = weights.reduce(divisor, 0) || 1;
    if (range / unit < mostStates) return { grid: unit, exact: true };
  }
  return { grid: range / Math.min(FINE, mostStates - 1) || 1, exact: false };
}

const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
