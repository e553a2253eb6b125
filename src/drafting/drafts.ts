/**
 * Decides which requests get drafts, and how long: by how often guesses were right and by what drafts and rows cost, both
 * measured as it runs. Where drafts do not pay there are none, but for a probe from time to time.
 */
import { addGuess, type Counts, chanceOf } from './acceptance.ts';
import type { Drafter, DraftRequest, DraftWish } from './drafter.ts';
import { chooseLengths } from './lengths.ts';
import { RowTimes } from './row-times.ts';

export interface DraftsOptions {
  /** In the order in which they are asked: a later one only for requests without a guess of an earlier one. */
  readonly drafters: readonly Drafter[];
  /** Ids below this are tokens. */
  readonly vocab: number;
  readonly onWarning?: ((text: string) => void) | undefined;
  /** Milliseconds. Default: performance.now */
  readonly now?: () => number;
}

export interface DraftNumbers {
  /** Tokens guessed since the model was loaded, and those of them that were right. */
  readonly tokens: number;
  readonly accepted: number;
  /** Milliseconds spent on guessing. */
  readonly ms: number;
}

/** Steps without drafts before the first ones: what they take is what drafts are compared with. */
const PLAIN_STEPS = 3;
/** Steps after which one without drafts is measured again. */
const PLAIN_EVERY = 64;
/** Guesses of a drafter until which one request at a time tries it. */
const TRIAL = 6;
/** Probes where drafts do not pay take at most this share of the time. */
const PROBE_SHARE = 0.01;
/** Calls of a drafter that are left out after it has failed; doubled each time. */
const FIRST_REST = 16;

/** What is known of one drafter. */
interface Known {
  readonly drafter: Drafter;
  readonly all: Counts;
  readonly own: WeakMap<DraftRequest, Counts>;
  /** Of one more guess, by the requests that got one. */
  readonly times: RowTimes;
  /** Longest draft to try: twice the longest one that was right. */
  reach: number;
  /** Milliseconds that a probe may take. */
  credit: number;
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
  /** Of forwards without prompt rows, and what follows them in a step. */
  readonly #steps = new RowTimes();
  readonly #given = new Map<DraftRequest, Given>();
  #plain = 0;
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
      rest: 0,
      nextRest: FIRST_REST,
    }));
  }

  numbers(): DraftNumbers {
    return { tokens: this.#tokens, accepted: this.#accepted, ms: this.#ms };
  }

  /**
   * Guesses for the next forward. @param rows of the forward without drafts @param room rows that drafts may have
   * @returns drafts by request, those of no token left out, and the milliseconds that they took
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
    for (const known of this.#known) {
      const open = wishes.filter(({ request }) => !drafts.has(request));
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

  /** Tells what a forward without prompt rows took. */
  record(rows: number, drafted: number, ms: number): void {
    this.#steps.record(rows, ms);
    if (drafted > 0) return;
    this.#plain++;
    for (const known of this.#known) known.credit += PROBE_SHARE * ms;
  }

  /**
   * Tells how many tokens of a request's draft were right. @param ended the text ended there: what comes next is not known
   * to be wrong
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

  /** Forgets a request: it has ended or pauses. */
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
    // While little is known, one request tries for all.
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
    if (asked.length > 0 || open.length === 0 || room < 1) return asked;
    const probe = open.reduce((a, b) =>
      known.drafter.readingMs(b.request) < known.drafter.readingMs(a.request) ? b : a,
    );
    const cost = known.drafter.readingMs(probe.request) + guessMs(1) + stepMs(rows + 1) - stepMs(rows);
    if (cost > known.credit) return [];
    known.credit -= cost;
    return [{ request: probe.request, most: 1 }];
  }

  async #ask(known: Known, asked: readonly DraftWish[]): Promise<readonly (readonly number[])[]> {
    const { drafter, times } = known;
    const start = this.#now();
    try {
      const drafts = await drafter.draft(asked);
      const depth = Math.max(...asked.map(({ most }) => most));
      times.record(asked.length, (this.#now() - start) / depth);
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

  /** What of a draft can be checked. */
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
