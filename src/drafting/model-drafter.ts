/** Drafts by a smaller model with the same tokens, in shared forwards for all requests. */
import { type Backend, PAGE } from '../backend/backend.ts';
import { OutOfMemoryError } from '../errors.ts';
import type { Evaluator, SequenceRows } from '../evaluate/evaluator.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import { sampleRows } from '../sampling/sample-rows.ts';
import type { Sampler } from '../sampling/sampler.ts';
import type { Drafter, DraftRequest, DraftWish } from './drafter.ts';

/** Rows of a forward that tell what reading costs. */
const LONG_READ = 4;

export interface ModelDrafterParts {
  readonly evaluator: Evaluator;
  /** Largest number of positions of a sequence. */
  readonly contextLength: number;
}

/** The draft model's state of one request. */
interface State {
  readonly sequence: Sequence;
  /** Number of computed tokens of the history, and the draft tokens computed after them. */
  known: number;
  guessed: number[];
}

/** A draft under construction. */
interface Growing {
  readonly state: State;
  readonly most: number;
  readonly sampler: Sampler;
  readonly draft: number[];
}

export class ModelDrafter implements Drafter {
  readonly name: string;
  /** Name of the model. */
  readonly model: string;
  readonly #evaluator: Evaluator;
  readonly #contextLength: number;
  readonly #states = new Map<DraftRequest, State>();
  /** Milliseconds per row of forwards over many rows; 0 until measured. */
  #rowMs = 0;
  #disposed: Promise<void> | undefined;

  constructor({ evaluator, contextLength }: ModelDrafterParts) {
    this.name = `the draft model ${evaluator.name}`;
    this.model = evaluator.name;
    this.#evaluator = evaluator;
    this.#contextLength = contextLength;
  }

  memory(): ReturnType<Backend['memory']> {
    return this.#evaluator.backend.memory();
  }

  draft(wishes: readonly DraftWish[]): Promise<readonly (readonly number[])[]> {
    return this.#evaluator.exclusive(async () => {
      const drafts = new Map<DraftRequest, readonly number[]>();
      try {
        let open = await this.#read(wishes);
        for (const [request, { draft }] of open) drafts.set(request, draft);
        for (;;) {
          const going = [...open].filter(([, { draft, most }]) => draft.length < most);
          if (going.length === 0) break;
          open = new Map(going);
          await this.#grow(going.map(([, growing]) => growing));
        }
      } catch (error) {
        // The contents of the cache for these requests are unknown now.
        for (const { request } of wishes) this.#forget(request, true);
        throw error;
      }
      return wishes.map(({ request }) => drafts.get(request) ?? []);
    });
  }

  readingMs(request: DraftRequest): number {
    return this.#rowMs * (request.history.length - (this.#states.get(request)?.known ?? 0));
  }

  release(request: DraftRequest): void {
    this.#forget(request, false);
  }

  dispose(): Promise<void> {
    this.#disposed ??= (async () => {
      for (const request of [...this.#states.keys()]) this.#forget(request, false);
      await this.#evaluator.dispose();
    })();
    return this.#disposed;
  }

  /**
   * One forward over new tokens of the histories, as far as it has room. Returns drafts for the histories that are
   * complete.
   */
  async #read(wishes: readonly DraftWish[]): Promise<Map<DraftRequest, Growing>> {
    const open = new Map<DraftRequest, Growing>();
    const rows: SequenceRows[] = [];
    const read: { readonly wish: DraftWish; readonly state: State; readonly done: boolean }[] = [];
    let room = this.#evaluator.maxRows;
    let entries = this.#evaluator.backend.cache.tableEntries;
    for (const wish of wishes) {
      const { request } = wish;
      const most = Math.min(wish.most, this.#contextLength - request.history.length + 1);
      if (most < 1 || room === 0 || read.length === this.#evaluator.maxWanted) continue;
      const state = await this.#stateOf(request);
      const tokens = request.history.slice(state.known, state.known + room);
      const done = state.known + tokens.length === request.history.length;
      // Skip texts with ids that only the larger model has.
      if (tokens.some((id) => id >= this.#evaluator.vocab)) continue;
      entries -= Math.ceil((request.history.length + most) / PAGE);
      if (entries < 0) break;
      if (!(await this.#reserve(state, request, state.known + tokens.length + (done ? most - 1 : 0), wishes))) continue;
      room -= tokens.length;
      rows.push({ sequence: state.sequence, tokens, wanted: done });
      read.push({ wish: { request, most }, state, done });
    }
    if (rows.length === 0) return open;
    const { results, report } = await this.#evaluator.forward(rows);
    const rowMs = report.ms / report.rows;
    if (report.rows >= LONG_READ) this.#rowMs = this.#rowMs === 0 ? rowMs : (this.#rowMs + rowMs) / 2;
    for (const [i, { wish, state, done }] of read.entries()) {
      state.known += rows[i]!.tokens.length;
      const { request, most } = wish;
      const steady = done ? this.#evaluator.steadyRows(state.sequence) : 0;
      if (done)
        open.set(request, { state, most: Math.min(most, 1 + steady), sampler: request.sampler.fork(), draft: [] });
    }
    await this.#choose(results, [...open.values()]);
    return open;
  }

  /** One forward over the last token of each draft, for the next token. */
  async #grow(growing: readonly Growing[]): Promise<void> {
    const rows = growing.map(({ state, draft }) => ({
      sequence: state.sequence,
      tokens: [draft.at(-1)!],
      wanted: true,
    }));
    const { results } = await this.#evaluator.forward(rows);
    for (const { state, draft } of growing) state.guessed.push(draft.at(-1)!);
    await this.#choose(results, growing);
  }

  /** Chooses a draft token for each row. The forked sampler draws the random number that the model's sampler will draw. */
  async #choose(results: Parameters<typeof sampleRows>[0], growing: readonly Growing[]): Promise<void> {
    const samples = await sampleRows(
      results,
      growing.map(({ sampler }, row) => ({ row, sampler })),
    );
    for (const [i, sample] of samples.entries()) {
      const { draft, sampler } = growing[i]!;
      if (sample instanceof Error) throw sample;
      draft.push(sample.id);
      sampler.accept(sample.id);
    }
  }

  /** The state of a request, cut back to the tokens that are in its history now. */
  async #stateOf(request: DraftRequest): Promise<State> {
    const { history } = request;
    let state = this.#states.get(request);
    if (!state) {
      const sequence = this.#evaluator.cache.sequence({ expected: history.length, key: request.cacheKey });
      state = { sequence, known: 0, guessed: [] };
      this.#states.set(request, state);
      state.known = await sequence.reuse(history);
    }
    // Keeps the map in order of last use.
    this.#states.delete(request);
    this.#states.set(request, state);
    let right = 0;
    while (right < state.guessed.length && state.guessed[right] === history[state.known + right]) right++;
    // The last token is always computed: its logits give the first draft token.
    state.known = Math.min(state.known + right, history.length - 1);
    state.guessed = [];
    state.sequence.truncate(state.known);
    return state;
  }

  /** Reserves pages, releasing those of requests that want no draft now if needed. @returns whether it has them */
  async #reserve(
    state: State,
    request: DraftRequest,
    positions: number,
    wishes: readonly DraftWish[],
  ): Promise<boolean> {
    for (;;) {
      try {
        await state.sequence.reserve(positions);
        return true;
      } catch (error) {
        if (!(error instanceof OutOfMemoryError)) throw error;
        const idle = [...this.#states.keys()].find((other) => !wishes.some((wish) => wish.request === other));
        this.#forget(idle ?? request, false);
        if (!idle) return false;
      }
    }
  }

  #forget(request: DraftRequest, unknown: boolean): void {
    const state = this.#states.get(request);
    this.#states.delete(request);
    if (unknown) state?.sequence.discard();
    else state?.sequence.release();
  }
}
