/**
 * Decides which requests get drafts and how long they are, from measured acceptance and measured times of drafts and
 * rows. If drafts do not pay, there are none except for a probe from time to time.
 */
import { addGuess, type Counts, chanceOf } from './acceptance.ts';
import type { Drafter, DraftRequest, DraftWish } from './drafter.ts';
import { chooseLengths } from './lengths.ts';
import { RowTimes } from './row-times.ts';

export interface DraftsOptions {
  /** Drafters in order of preference: a later one is called only for requests without a draft by an earlier one. */
  readonly drafters: readonly Drafter[];
  /** Vocabulary size. */
  readonly vocab: number;
  readonly onWarning?: ((text: string) => void) | undefined;
  /** Clock in milliseconds. Default: performance.now. */
  readonly now?: () => number;
}

export interface DraftNumbers {
  /** Draft tokens since the model was loaded, and accepted ones. */
  readonly tokens: number;
  readonly accepted: number;
  /** Milliseconds spent on drafting. */
  readonly ms: number;
}

/** Number of steps without drafts at first, whose times drafts are compared with. */
const PLAIN_STEPS = 3;
/** Number of steps after which a step without drafts is measured again. */
const PLAIN_EVERY = 64;
/** Until a drafter has had this many tokens checked, only one request at a time tries it. */
const TRIAL = 6;
/** Largest share of time for probes if drafts do not pay. */
const PROBE_SHARE = 0.01;
/** Difference in acceptance between two drafters that outweighs the cost of the later one. */
const CLEARLY = 0.1;
/** One call in this many asks the drafters in their order, whatever their acceptance was. */
const RETRY_EVERY = 16;
/** Number of calls skipped after a drafter has failed; doubled each time. */
const FIRST_REST = 16;

/** Measurements of one drafter. */
interface Known {
  readonly drafter: Drafter;
  readonly all: Counts;
  readonly own: WeakMap<DraftRequest, Counts>;
  /** Times of one more draft token, by the number of requests that got one. */
  readonly times: RowTimes;
  /** Longest draft to try: twice the longest accepted one. */
  reach: number;
  /** Milliseconds that a probe may take. */
  credit: number;
  /** Whether drafts paid when they were last decided about. */
  pays: boolean;
  /** Whether the present draft is a probe. */
  probes: boolean;
  rest: number;
  nextRest: number;
}

interface Given {
  readonly known: Known;
  readonly tokens: readonly number[];
}

export class Drafts {
  readonly #known: readonly Known[];
  readonly #vocab: number;
  readonly #now: () => number;
  readonly #onWarning: DraftsOptions['onWarning'];
  /** Times of steps without prompt rows: forward, sampling and so on. */
  readonly #steps = new RowTimes();
  readonly #given = new Map<DraftRequest, Given>();
  #plain = 0;
  #calls = 0;
  #warned = false;
  #tokens = 0;
  #accepted = 0;
  #ms = 0;

  constructor({ drafters, vocab, onWarning, now = () => performance.now() }: DraftsOptions) {
    this.#vocab = vocab;
    this.#now = now;
    this.#onWarning = onWarning;
    this.#known = drafters.map((drafter) => ({
      drafter,
      all: { right: 1.6, tried: 2 },
      own: new WeakMap(),
      times: new RowTimes(),
      reach: 1,
      credit: 0,
      pays: false,
      probes: false,
      rest: 0,
      nextRest: FIRST_REST,
    }));
  }

  numbers(): DraftNumbers {
    return { tokens: this.#tokens, accepted: this.#accepted, ms: this.#ms };
  }

  /**
   * Drafts for the next forward.
   * @param rows rows of the forward without drafts
   * @param room largest number of draft rows
   * @returns non-empty drafts by request, and the milliseconds that they took
   */
  async guess(
    wishes: readonly DraftWish[],
    rows: number,
    room: number,
  ): Promise<{ drafts: ReadonlyMap<DraftRequest, readonly number[]>; ms: number }> {
    const drafts = new Map<DraftRequest, readonly number[]>();
    const start = this.#now();
    if (this.#plain < PLAIN_STEPS || this.#steps.since(rows) >= PLAIN_EVERY) return { drafts, ms: 0 };
    this.#given.clear();
    let drafted = 0;
    this.#calls++;
    for (const known of this.#known) {
      const open = wishes.filter(({ request }) => !drafts.has(request) && this.#isBest(known, request));
      const asked = this.#lengths(known, open, rows + drafted, room - drafted);
      if (asked.length === 0) continue;
      for (const [i, tokens] of (await this.#ask(known, asked)).entries()) {
        const { request } = asked[i]!;
        if (tokens.length === 0) continue;
        drafts.set(request, tokens);
        this.#given.set(request, { known, tokens });
        drafted += tokens.length;
      }
    }
    const ms = this.#now() - start;
    this.#tokens += drafted;
    this.#ms += ms;
    return { drafts, ms };
  }

  /**
   * Whether no later drafter that pays is accepted more often: an earlier one costs less. Now and then the order alone
   * decides, since texts change.
   */
  #isBest(known: Known, request: DraftRequest): boolean {
    if (this.#calls % RETRY_EVERY === 0) return true;
    const chance = (of: Known): number => chanceOf(ownCounts(of, request), of.all);
    const later = this.#known.slice(this.#known.indexOf(known) + 1);
    return !later.some((other) => other.pays && chance(other) > chance(known) + CLEARLY);
  }

  /** Records the time of a step without prompt rows. */
  record(rows: number, drafted: number, ms: number): void {
    this.#steps.record(rows, ms);
    if (drafted > 0) return;
    this.#plain++;
    for (const known of this.#known) known.credit += PROBE_SHARE * ms;
  }

  /**
   * Records how many tokens of a request's draft were accepted. @param ended whether the text ended there, so that the next
   * token was not rejected
   */
  judge(request: DraftRequest, accepted: number, ended: boolean): void {
    const given = this.#given.get(request);
    if (!given) return;
    this.#given.delete(request);
    this.#accepted += accepted;
    const { known, tokens } = given;
    const own = ownCounts(known, request);
    for (let i = 0; i < accepted; i++) addGuess(own, known.all, true);
    if (accepted < tokens.length && !ended) addGuess(own, known.all, false);
    if (accepted >= known.reach) known.reach = 2 * accepted;
  }

  /** Forgets a request, because it has ended or pauses. */
  release(request: DraftRequest): void {
    this.#given.delete(request);
    for (const { drafter } of this.#known) drafter.release(request);
  }

  async dispose(): Promise<void> {
    for (const { drafter } of this.#known) await drafter.dispose();
  }

  #lengths(known: Known, open: readonly DraftWish[], rows: number, room: number): DraftWish[] {
    if (known.rest > 0) {
      known.rest--;
      return [];
    }
    const { times, all, reach } = known;
    // While there are few measurements, only one request gets drafts.
    const candidates = all.tried < TRIAL ? open.slice(0, 1) : open;
    const stepMs = (count: number): number => this.#steps.ms(count)!;
    const guessMs = (requests: number): number => times.ms(requests) ?? 0;
    const lengths = chooseLengths({
      rows,
      room,
      requests: candidates.map(({ request, most }) => ({
        chance: chanceOf(ownCounts(known, request), all),
        most: Math.min(most, reach),
      })),
      stepMs,
      guessMs,
    });
    const asked = candidates.flatMap(({ request }, i) => (lengths[i]! > 0 ? [{ request, most: lengths[i]! }] : []));
    if (open.length === 0 || room < 1) return [];
    known.pays = asked.length > 0;
    if (known.pays) return asked;
    const probe = open.reduce((a, b) =>
      known.drafter.readingMs(b.request) < known.drafter.readingMs(a.request) ? b : a,
    );
    const rowMs = Math.max(0, stepMs(rows + 1) - stepMs(rows));
    if (known.drafter.readingMs(probe.request) + guessMs(1) + rowMs > known.credit) return [];
    known.credit -= rowMs;
    known.probes = true;
    return [{ request: probe.request, most: 1 }];
  }

  async #ask(known: Known, asked: readonly DraftWish[]): Promise<readonly (readonly number[])[]> {
    const { drafter, times } = known;
    const start = this.#now();
    try {
      const drafts = await drafter.draft(asked);
      const depth = Math.max(...asked.map(({ most }) => most));
      const ms = this.#now() - start;
      times.record(asked.length, ms / depth);
      // What it took, not what it was expected to take: too much is waited for.
      if (known.probes) known.credit -= ms;
      known.probes = false;
      return asked.map(({ most }, i) => this.#tokensOf(drafts[i], most));
    } catch (error) {
      known.rest = known.nextRest;
      known.nextRest *= 2;
      if (!this.#warned) {
        const what = error instanceof Error ? error.message : String(error);
        this.#onWarning?.(`${drafter.name} failed, texts go on without its drafts for now: ${what}`);
      }
      this.#warned = true;
      return asked.map(() => []);
    }
  }

  /** The tokens of a draft that can be checked: valid ids, at most `most`. */
  #tokensOf(draft: readonly number[] | undefined, most: number): readonly number[] {
    if (!Array.isArray(draft)) return [];
    const cut = draft.slice(0, most);
    const bad = cut.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id < this.#vocab));
    return bad < 0 ? cut : cut.slice(0, bad);
  }
}

function ownCounts({ own }: Known, request: DraftRequest): Counts {
  let counts = own.get(request);
  if (!counts) {
    counts = { right: 0, tried: 0 };
    own.set(request, counts);
  }
  return counts;
}
