/**
 * Divides the prompt rows of a forward among requests in prefill: deficit round robin over fairness keys (M. Shreedhar and
 * G. Varghese, 1995); within a key, the prompt with the fewest missing rows first. A request that has waited for ten times
 * its own work comes before all others, so that short prompts cannot delay a long one for ever.
 */

export interface PromptReader {
  /** Lower numbers are served first. */
  readonly priority: number;
  readonly fairnessKey: string;
  /** Number of the request, ascending. */
  readonly arrival: number;
  /** Prompt rows that remain to be computed, at least 1. */
  readonly missing: number;
  /** Rows of the whole prompt. */
  readonly total: number;
  /** Rows given to others while it got none. */
  waited: number;
}

/** Rows added to the deficit of a key in each round. */
const QUANTUM = 16;
/** Initial deficit of a new key, so that a short prompt does not wait for a round. */
const WELCOME = 64;
/** A request comes first after waiting for this multiple of its own rows. */
const PATIENCE = 10;

export class PromptShares {
  /** Fairness keys in the order of their turns -> rows that each may still get in this round. */
  readonly #deficits = new Map<string, number>();

  /** @returns rows of each request; requests without rows are left out */
  divide<R extends PromptReader>(readers: readonly R[], room: number): Map<R, number> {
    const given = new Map<R, number>();
    const give = (reader: R, most: number): number => {
      const rows = Math.min(most, left, reader.missing - (given.get(reader) ?? 0));
      if (rows > 0) given.set(reader, (given.get(reader) ?? 0) + rows);
      left -= rows;
      return rows;
    };
    let left = room;
    this.#meet(readers);
    const aged = readers.filter(({ waited, total }) => waited >= PATIENCE * total);
    for (const reader of aged.sort((a, b) => a.arrival - b.arrival)) give(reader, left);
    for (const priority of [...new Set(readers.map((reader) => reader.priority))].sort((a, b) => a - b))
      this.#round(
        readers.filter((reader) => reader.priority === priority && !aged.includes(reader)),
        () => left,
        give,
      );
    const total = room - left;
    for (const reader of readers) if (!given.has(reader)) reader.waited += total;
    return given;
  }

  /** Removes keys without requests, and puts new keys first. */
  #meet(readers: readonly PromptReader[]): void {
    const keys = new Set(readers.map(({ fairnessKey }) => fairnessKey));
    for (const key of this.#deficits.keys()) if (!keys.has(key)) this.#deficits.delete(key);
    const fresh = [...keys].filter((key) => !this.#deficits.has(key));
    if (fresh.length === 0) return;
    const known = [...this.#deficits];
    this.#deficits.clear();
    for (const key of fresh) this.#deficits.set(key, WELCOME);
    for (const [key, deficit] of known) this.#deficits.set(key, deficit);
  }

  #round<R extends PromptReader>(
    readers: readonly R[],
    left: () => number,
    give: (reader: R, most: number) => number,
  ): void {
    const byKey = new Map<string, R[]>();
    for (const reader of [...readers].sort((a, b) => a.missing - b.missing || a.arrival - b.arrival)) {
      const own = byKey.get(reader.fairnessKey);
      if (own) own.push(reader);
      else byKey.set(reader.fairnessKey, [reader]);
    }
    while (left() > 0 && byKey.size > 0) {
      const key = [...this.#deficits.keys()].find((candidate) => byKey.has(candidate))!;
      let deficit = this.#deficits.get(key)!;
      const own = byKey.get(key)!;
      while (own.length > 0 && deficit > 0 && left() > 0) {
        const rows = give(own[0]!, deficit);
        deficit -= rows;
        if (rows === 0 || deficit > 0) own.shift();
      }
      if (own.length === 0) byKey.delete(key);
      if (left() === 0 && deficit > 0) this.#deficits.set(key, deficit);
      else {
        // The turn of the key is over: move it to the end, with the quantum of the next round.
        this.#deficits.delete(key);
        this.#deficits.set(key, (own.length === 0 ? 0 : deficit) + QUANTUM);
      }
    }
  }
}
