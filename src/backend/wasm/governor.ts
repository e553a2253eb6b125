/**
 * How many of its threads a forward should use.
 *
 * All of them, unless something speaks against it: more threads than cores, or forwards that have become much slower
 * than they were, as when another program takes a core and every barrier waits for a thread that does not run. Then
 * fewer threads are tried, the faster way is kept, and all are tried again from time to time. Results do not depend on
 * it: bits are the same for any number of threads.
 */

/** Forwards of one kind that are remembered; their median counts. */
const MEMORY = 5;
/** So much slower than the fastest ones are suspicious. */
const SUSPICIOUS = 1.5;
/** Fewer threads must be this much faster: all of them have better days ahead. */
const CLEARLY = 0.95;
/** Milliseconds until a way is tried again; doubled each time that it lost, up to the longest. */
const FIRST_PATIENCE = 1000;
const LONGEST_PATIENCE = 16_000;

interface Way {
  readonly threads: number;
  forwards: number;
  /** Milliseconds per row of the latest forwards. */
  recent: number[];
  fastest: number;
  triedAt: number;
  patience: number;
}

/** Forwards with so many rows are alike: their time per row can be compared. */
const kindOf = (rows: number): number => (rows === 1 ? 0 : rows <= 8 ? 1 : rows <= 64 ? 2 : 3);

export class Governor {
  readonly #threads: number;
  readonly #cores: number;
  readonly #now: () => number;
  readonly #kinds = new Map<number, readonly Way[]>();

  /** @param now milliseconds */
  constructor(threads: number, cores: number, now: () => number = () => performance.now()) {
    this.#threads = threads;
    this.#cores = cores;
    this.#now = now;
  }

  /** Threads for a forward of so many rows. */
  choose(rows: number): number {
    const [all, ...fewer] = this.#ways(rows);
    if (fewer.length === 0 || all!.forwards < MEMORY) return all!.threads;
    const best = this.#best(rows);
    if (best === all && !this.#suspicious(all!)) return all!.threads;
    const due = [all!, ...fewer].find((way) => way !== best && this.#now() - way.triedAt >= way.patience);
    return (due ?? best).threads;
  }

  /** Tells how long a forward took. */
  record(rows: number, threads: number, milliseconds: number): void {
    const way = this.#ways(rows).find((candidate) => candidate.threads === threads);
    if (!way) return;
    const perRow = milliseconds / rows;
    const tried = this.#best(rows) !== way;
    // A way that is tried now and then is judged by this try, not by how it was in other times.
    way.recent = tried ? [perRow] : [...way.recent.slice(1 - MEMORY), perRow];
    way.forwards++;
    way.fastest = Math.min(way.fastest, perRow);
    way.triedAt = this.#now();
    if (tried) way.patience = this.#best(rows) === way ? FIRST_PATIENCE : Math.min(LONGEST_PATIENCE, way.patience * 2);
  }

  #ways(rows: number): readonly Way[] {
    const kind = kindOf(rows);
    const known = this.#kinds.get(kind);
    if (known) return known;
    const counts = new Set([this.#threads, Math.min(this.#threads, this.#cores), 1]);
    const ways = [...counts].map((threads): Way => {
      return {
        threads,
        forwards: 0,
        recent: [],
        fastest: Number.POSITIVE_INFINITY,
        triedAt: -LONGEST_PATIENCE,
        patience: FIRST_PATIENCE,
      };
    });
    this.#kinds.set(kind, ways);
    return ways;
  }

  #suspicious(all: Way): boolean {
    return all.threads > this.#cores || median(all.recent) > SUSPICIOUS * all.fastest;
  }

  /** The fastest way as far as known: all threads unless another one is clearly faster. */
  #best(rows: number): Way {
    const ways = this.#ways(rows);
    return ways.reduce((best, way) => {
      if (way.recent.length === 0) return best;
      return median(way.recent) < median(best.recent) * CLEARLY ? way : best;
    });
  }
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;
