/**
 * Divides the prompt rows of a forward among the requests that read their prompts: deficit round robin over fairness keys
 * (M. Shreedhar and G. Varghese, 1995), within a key the prompt that is done soonest first. A request that has waited for
 * ten times its own work comes before all others, so that short prompts cannot keep a long one waiting for ever.
 */

export interface PromptReader {
  /** Lower ones are served first. */
  readonly priority: number;
  readonly fairnessKey: string;
  /** Counts up with each request. */
  readonly arrival: number;
  /** Rows of its prompt that are not computed yet, at least 1. */
  readonly missing: number;
  /** Rows of its whole prompt. */
  readonly total: number;
  /** Rows that others were given while it had none. */
  waited: number;
}

/** Rows that a key may have more in each round. */
const QUANTUM = 16;
/** Rows that a key has for nothing when it comes anew: an ordinary question need not wait for a round. */
const WELCOME = 64;
/** Waiting is measured in the request's own work. */
const PATIENCE = 10;

export class PromptShares {
  /** Keys in the order of their turns, and the rows that each may still have in this round. */
  readonly #deficits = new Map<string, number>();

  /** @returns rows of each reader; those without any are left out */
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

  /** Keys without readers lose what they had; new ones are next. */
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
        // Its turn is over: to the end, with what the next round gives it.
        this.#deficits.delete(key);
        this.#deficits.set(key, (own.length === 0 ? 0 : deficit) + QUANTUM);
      }
    }
  }
}
