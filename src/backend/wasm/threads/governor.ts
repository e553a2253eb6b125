/**
 * How many of its threads a forward should use.
 *
 * All of them, unless something speaks against it: more threads than cores, or forwards that have become much slower
 * than they were, or than fewer threads have been, as when another program takes a core and every barrier waits for a thread
 * that does not run. Then fewer threads are tried for some forwards, the faster way is kept, and all are tried again from time
 * to time. Results do not depend on it: bits are the same for any number of threads.
 */
import { CLAIMING_ROWS } from '../../../kernels/claims.ts';

/** Forwards of one kind that are remembered; their median counts. */
const MEMORY = 5;
/** Forwards of a trial. */
const TRIAL = 3;
/** So much slower than the fastest ones are suspicious. */
const SUSPICIOUS = 1.5;
/** Fewer threads must be this much faster: all of them have better days ahead. */
const CLEARLY = 0.95;
/** Milliseconds of a forward up to which fewer threads are tried without a suspicion, once: a core may be gone already. */
const CHEAP = 100;
/** Milliseconds until a way is tried again; doubled each time that it lost, up to the longest. */
const FIRST_PATIENCE = 1000;
const LONGEST_PATIENCE = 8000;

interface Way {
  readonly threads: number;
  forwards: number;
  /** Milliseconds per row of the latest forwards. */
  recent: number[];
  fastest: number;
  usedAt: number;
  patience: number;
}

/** Forwards with so many rows are alike: their time per row can be compared. */
interface Kind {
  /** All threads first. */
  readonly ways: readonly Way[];
  /** The way that the next forwards are to judge. */
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
    // A thread that does not run leaves claimed work to the others: as long as they have cores, more are faster.
    const claimed = rows >= CLAIMING_ROWS && this.#counted && this.#threads <= this.#cores;
    if (claimed || fewer.length === 0 || all!.forwards < MEMORY) return all!.threads;
    if (!kind.trial) {
      kind.trial = this.#due(kind, rows);
      // Judged by this trial, not by how it was in other times.
      if (kind.trial) kind.trial.recent = [];
    }
    return (kind.trial ?? best(kind)).threads;
  }

  /** Tells how long a forward took. */
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

  /** A way that should be tried now. */
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

/** The fastest way as far as known: all threads unless another one is clearly faster. */
const best = ({ ways }: Kind): Way =>
  ways.reduce((found, way) => {
    if (way.recent.length === 0) return found;
    return median(way.recent) < median(found.recent) * CLEARLY ? way : found;
  });

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;
