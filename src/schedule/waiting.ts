/**
 * Requests that wait to be admitted: those of lower priority number first, among equals one of each fairness key in turn,
 * of one key in the order of their arrival. One that many later ones have passed goes first.
 */

export interface WaitingRequest {
  readonly priority: number;
  readonly fairnessKey: string;
  /** Counts up with each request. A paused one keeps its own. */
  readonly arrival: number;
  /** Later ones that were admitted before it. */
  passed: number;
}

/** Later ones that may pass. */
const PATIENCE = 10;

export class WaitingLine<R extends WaitingRequest> {
  readonly #requests = new Set<R>();
  /** Keys in the order of their turns: whose turn was last is last. */
  readonly #turns = new Set<string>();

  get size(): number {
    return this.#requests.size;
  }

  [Symbol.iterator](): Iterator<R> {
    return this.#requests[Symbol.iterator]();
  }

  add(request: R): void {
    this.#requests.add(request);
  }

  delete(request: R): boolean {
    const held = this.#requests.delete(request);
    if (this.#requests.size === 0) this.#turns.clear();
    return held;
  }

  /** The one to be admitted next; it stays in line. */
  next(): R | undefined {
    let best: R | undefined;
    for (const request of this.#requests) if (!best || this.#before(request, best)) best = request;
    return best;
  }

  /** Takes one out of the line. */
  admit(request: R): void {
    for (const other of this.#requests) if (other.arrival < request.arrival) other.passed++;
    this.#turns.delete(request.fairnessKey);
    this.#turns.add(request.fairnessKey);
    this.delete(request);
  }

  #before(a: R, b: R): boolean {
    const [aged, otherAged] = [a.passed >= PATIENCE, b.passed >= PATIENCE];
    if (aged !== otherAged) return aged;
    if (aged) return a.arrival < b.arrival;
    if (a.priority !== b.priority) return a.priority < b.priority;
    if (a.fairnessKey !== b.fairnessKey) {
      const [turn, otherTurn] = [this.#turnOf(a.fairnessKey), this.#turnOf(b.fairnessKey)];
      if (turn !== otherTurn) return turn < otherTurn;
    }
    return a.arrival < b.arrival;
  }

  /** Keys that had no turn yet come first. */
  #turnOf(key: string): number {
    let turn = 0;
    for (const known of this.#turns) {
      turn++;
      if (known === key) return turn;
    }
    return 0;
  }
}
