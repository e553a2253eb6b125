/**
 * The queue of waiting requests. Lower priority numbers come first, among equals the fairness keys take turns, within a key
 * requests are in order of arrival. A request that many later ones have overtaken comes first.
 */

export class WaitingRequest {
  /** Number of the request, ascending. A paused request keeps its number. */
  readonly arrival: number;
  readonly priority: number;
  readonly fairnessKey: string;
  /** Number of later requests served since its own last turn. */
  passed = 0;

  constructor(arrival: number, { priority, fairnessKey }: Pick<WaitingRequest, 'priority' | 'fairnessKey'>) {
    this.arrival = arrival;
    this.priority = priority;
    this.fairnessKey = fairnessKey;
  }
}

/** Number of later requests that may overtake. */
const PATIENCE = 10;

/** Whether a request has been overtaken so often that it comes first. */
export const hasAged = ({ passed }: WaitingRequest): boolean => passed >= PATIENCE;

export class WaitingLine<R extends WaitingRequest> {
  readonly #requests = new Set<R>();
  /** Fairness key -> number of its last turn, in the order of turns. */
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

  /** The next request, which stays in the queue. @param eligible requests to consider */
  next(eligible: (request: R) => boolean = () => true): R | undefined {
    let best: R | undefined;
    for (const request of this.#requests)
      if (eligible(request) && (!best || this.#before(request, best))) best = request;
    return best;
  }

  /** Removes a request from the queue, because it is admitted. It stays aged, so that it does not have to wait again. */
  admit(request: R): void {
    this.#takeTurn(request);
    this.delete(request);
  }

  /** Notes that a request had its turn and stays in the queue. */
  served(request: R): void {
    request.passed = 0;
    this.#takeTurn(request);
  }

  #takeTurn(request: R): void {
    for (const other of this.#requests) if (other.arrival < request.arrival) other.passed++;
    this.#turns.delete(request.fairnessKey);
    this.#turns.set(request.fairnessKey, ++this.#turn);
    // The key with the oldest turn comes first in any case, so it can be forgotten.
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

  /** Number of the last turn of a request's key; 0, which comes first, if it had none. */
  #turnOf({ fairnessKey }: R): number {
    return this.#turns.get(fairnessKey) ?? 0;
  }
}
