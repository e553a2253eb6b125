/**
 * Requests that wait to be admitted: those of lower priority number first, among equals one of each fairness key in turn,
 * of one key in the order of their arrival. One that many later ones have passed goes first.
 */

export interface WaitingRequest {
  readonly priority: number;
  readonly fairnessKey: string;
  /** Counts up with each request. A paused one keeps its own. */
  readonly arrival: number;
  /** Later ones that were served since its own last turn. */
  passed: number;
}

/** Later ones that may pass. */
const PATIENCE = 10;

/** Whether so many later ones passed a request that it goes first. */
export const hasAged = ({ passed }: WaitingRequest): boolean => passed >= PATIENCE;

export class WaitingLine<R extends WaitingRequest> {
  readonly #requests = new Set<R>();
  /** When each key had its last turn, in the order of turns. */
  readonly #turns = new Map<string, number>();
  #turn = 0;

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

  /** The one to be served next; it stays in line. @param eligible which ones count */
  next(eligible: (request: R) => boolean = () => true): R | undefined {
    let best: R | undefined;
    for (const request of this.#requests)
      if (eligible(request) && (!best || this.#before(request, best))) best = request;
    return best;
  }

  /** Takes one out of the line. It stays aged: having waited for so long, it is not to wait again. */
  admit(request: R): void {
    this.#takeTurn(request);
    this.delete(request);
  }

  /** Notes that one had its turn and stays in line. */
  served(request: R): void {
    request.passed = 0;
    this.#takeTurn(request);
  }

  #takeTurn(request: R): void {
    for (const other of this.#requests) if (other.arrival < request.arrival) other.passed++;
    this.#turns.delete(request.fairnessKey);
    this.#turns.set(request.fairnessKey, ++this.#turn);
    // The key whose last turn is longest ago comes first, remembered or not.
    const [oldest] = this.#turns.keys();
    if (this.#turns.size > 2 * this.#requests.size + 1) this.#turns.delete(oldest!);
  }

  #before(a: R, b: R): boolean {
    const [aged, otherAged] = [hasAged(a), hasAged(b)];
    if (aged !== otherAged) return aged;
    if (aged) return a.arrival < b.arrival;
    if (a.priority !== b.priority) return a.priority < b.priority;
    const [turn, otherTurn] = [this.#turnOf(a), this.#turnOf(b)];
    return turn === otherTurn ? a.arrival < b.arrival : turn < otherTurn;
  }

  /** Keys without a turn come first. */
  #turnOf({ fairnessKey }: R): number {
    return this.#turns.get(fairnessKey) ?? 0;
  }
}
