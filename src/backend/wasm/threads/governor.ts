/**
 * Chooses how many threads a forward uses.
 *
 * Normally all. Fewer are tried if there are more threads than cores, or if forwards become much slower than before or than
 * with fewer threads: when another program occupies a core, every barrier waits for a thread that does not run. The faster
 * way is kept, and all threads are tried again from time to time. The number of threads does not change the bits of results.
 */
import { CLAIMING_ROWS } from '../../../kernels/claims.ts';

/** Number of recent forwards whose median is compared. */
const MEMORY = 5;
/** Number of forwards of a trial. */
const TRIAL = 3;
/** Slowdown relative to the fastest forward from which fewer threads are tried. */
const SUSPICIOUS = 1.5;
/** Prefer all threads unless fewer are at least 5 % faster: slowdowns are usually temporary. */
const CLEARLY = 0.95;
/** Fewer threads are tried once without a slowdown if a forward takes fewer milliseconds: a core may be occupied from the start. */
const CHEAP = 100;
/** Milliseconds until a way is tried again; doubled after each lost trial, up to the longest. */
const FIRST_PATIENCE = 1000;
const LONGEST_PATIENCE = 8000;

interface Way {
  readonly threads: number;
  forwards: number;
  /** Milliseconds per row of recent forwards. */
  recent: number[];
  fastest: number;
  usedAt: number;
  patience: number;
}

/** Forwards with similar numbers of rows, whose times per row can be compared. */
interface Kind {
  /** All threads first. */
  readonly ways: readonly Way[];
  /** The way that the next forwards test. */
  trial?: Way | undefined;
}

const kindOf = (rows: number): number => (rows === 1 ? 0 : rows <= 8 ? 1 : rows <= 64 ? 2 : 3);

export class Governor {
  readonly #threads: number;
  readonly #cores: number;
  readonly #now: () => number;
  readonly #counted: boolean;
  readonly #kinds = new Map<number, Kind>();

  /**
   * @param now milliseconds
   * @param counted false where `cores` may be wrong, as in browsers: a half, a quarter ... of the threads are tried too
   */
  constructor(threads: number, cores: number, now: () => number = () => performance.now(), counted = true) {
    this.#threads = threads;
    this.#cores = cores;
    this.#now = now;
    this.#counted = counted;
  }

  /** Threads for a forward of so many rows. */
  choose(rows: number): number {
    const kind = this.#kind(rows);
    const [all, ...fewer] = kind.ways;
    // Claimed work goes to the threads that run, so all threads are fastest as long as there are cores.
    const claimed = rows >= CLAIMING_ROWS && this.#counted && this.#threads <= this.#cores;
    if (claimed || fewer.length === 0 || all!.forwards < MEMORY) return all!.threads;
    if (!kind.trial) {
      kind.trial = this.#due(kind, rows);
      // Only times of this trial count.
      if (kind.trial) kind.trial.recent = [];
    }
    return (kind.trial ?? best(kind)).threads;
  }

  /** Records the time of a forward. */
  record(rows: number, threads: number, milliseconds: number): void {
    const kind = this.#kind(rows);
    const way = kind.ways.find((candidate) => candidate.threads === threads);
    if (!way) return;
    const perRow = milliseconds / rows;
    way.recent = [...way.recent.slice(1 - MEMORY), perRow];
    way.forwards++;
    way.fastest = Math.min(way.fastest, perRow);
    way.usedAt = this.#now();
    if (kind.trial !== way || way.recent.length < TRIAL) return;
    kind.trial = undefined;
    way.patience = best(kind) === way ? FIRST_PATIENCE : Math.min(LONGEST_PATIENCE, way.patience * 2);
  }

  #kind(rows: number): Kind {
    const known = this.#kinds.get(kindOf(rows));
    if (known) return known;
    const counts = new Set([this.#threads, Math.min(this.#threads, this.#cores)]);
    if (!this.#counted) for (let half = this.#threads >> 1; half > 1; half >>= 1) counts.add(half);
    counts.add(1);
    const ways = [...counts].map((threads): Way => {
      return {
        threads,
        forwards: 0,
        recent: [],
        fastest: Number.POSITIVE_INFINITY,
        usedAt: -LONGEST_PATIENCE,
        patience: FIRST_PATIENCE,
      };
    });
    const kind: Kind = { ways };
    this.#kinds.set(kindOf(rows), kind);
    return kind;
  }

  /** A way to try now, if any. */
  #due(kind: Kind, rows: number): Way | undefined {
    const [all] = kind.ways;
    const current = best(kind);
    const now = median(all!.recent);
    const slow = all!.threads > this.#cores || now > SUSPICIOUS * all!.fastest;
    const doubtful = (way: Way): boolean =>
      current !== all ||
      slow ||
      way.fastest < CLEARLY * now ||
      (way.forwards === 0 && (!this.#counted || now * rows < CHEAP));
    return kind.ways.find((way) => way !== current && this.#now() - way.usedAt >= way.patience && doubtful(way));
  }
}

/** The fastest known way: all threads, unless another one is clearly faster. */
const best = ({ ways }: Kind): Way =>
  ways.reduce((found, way) => {
    if (way.recent.length === 0) return found;
    return median(way.recent) < median(found.recent) * CLEARLY ? way : found;
  });

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;
