/** Runs a schedule and checks every reply against the same request alone. */
import assert from 'node:assert/strict';
import type { SequenceHandle } from '../../src/engine/engine.ts';
import { Model } from '../../src/engine/model.ts';
import { LanewiseError } from '../../src/errors.ts';
import type { Prompt } from '../../src/prompts/prompt.ts';
import { seedOfSample } from '../../src/sampling/random.ts';
import type { GenerateEvent, GenerateResult } from '../../src/schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../../src/schedule/generation-options.ts';
import { bitsOf, codeOf, optionsOf, type References } from './reference.ts';
import type { Reply } from './reply.ts';
import { type PlannedFault, type PlannedRaw, type PlannedRequest, promptOf, type Schedule } from './schedule.ts';
import { beside, type Golden, injected, makeStage, type Phase, type Stage } from './stage.ts';

export interface OracleModel {
  readonly golden: Golden;
  readonly references: References;
}

/** How often what happened: an oracle that never saw a pause says nothing about pauses. */
export interface Figures {
  [what: string]: number;
}

/** Reads all chunks of a forward. */
async function drained(chunks: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of chunks);
}

const PAGE = 64;
const EPOCH = 1e12;
const MOST_STEPS = 4000;
/** Turns of the event loop without a step, after which nothing will ever come. */
const MOST_TURNS = 3000;

export class Play {
  readonly #model: OracleModel;
  readonly #schedule: Schedule;
  readonly #figures: Figures;
  readonly #stage: Stage;
  readonly #facade: Model;
  readonly #replies: Reply[] = [];
  readonly #work: Promise<unknown>[] = [];
  readonly #actions: { readonly at: number; readonly phase: Phase; readonly run: () => void }[] = [];
  #step = 0;
  #open = 0;
  #poisoned = 0;
  /** Requests in forwards that failed, by the text of the failure. */
  readonly #failures = new Map<string, number>();
  #heldPages = 0;
  #over = false;
  #violation: unknown;

  constructor(model: OracleModel, schedule: Schedule, figures: Figures) {
    this.#model = model;
    this.#schedule = schedule;
    this.#figures = figures;
    const { contextLength } = model.golden.prompts.files;
    const { spare, ...options } = schedule;
    const capacity = Math.ceil(contextLength / PAGE) + spare;
    const active = ({ kind, at, span }: PlannedFault): boolean =>
      kind === 'memory' && this.#step >= at && this.#step < at + span;
    const used = new Set<PlannedFault>();
    this.#stage = makeStage(
      model.golden,
      { ...options, capacity },
      {
        step: () => this.#tick(),
        during: (phase, parts) => {
          this.#act(phase);
          const fault = schedule.faults.find(
            (candidate) => candidate.kind === phase && candidate.at <= this.#step && !used.has(candidate),
          );
          if (!fault) return;
          used.add(fault);
          const error = injected(`${phase} ${fault.at} ${used.size}`);
          this.#failures.set(error.message, parts);
          throw error;
        },
        full: () => !this.#over && schedule.faults.some((fault) => active(fault)),
        poison: (wanted) => {
          const fault = schedule.faults.find(
            (candidate) =>
              (candidate.kind === 'nan' || candidate.kind === 'infinity') &&
              candidate.at <= this.#step &&
              !used.has(candidate),
          );
          if (!fault || wanted === 0) return undefined;
          used.add(fault);
          const value = fault.kind === 'nan' ? Number.NaN : Number.POSITIVE_INFINITY;
          return { row: fault.row % wanted, value };
        },
        poisoned: () => void this.#poisoned++,
      },
    );
    this.#facade = new Model(this.#stage.engine);
  }

  async run(): Promise<void> {
    const { requests, raws } = this.#schedule;
    for (const request of requests) this.#plan(request.at, 'step', () => this.#begin(request));
    for (const raw of raws) this.#plan(raw.at, 'step', () => this.#work.push(this.#holdPages(raw)));
    const { now } = Date;
    const microtask = globalThis.queueMicrotask;
    Date.now = () => EPOCH + this.#step * 1000;
    globalThis.queueMicrotask = (run) =>
      microtask(() => {
        try {
          run();
        } catch {
          this.#count('listeners that threw');
        }
      });
    try {
      await this.#drive();
    } finally {
      Date.now = now;
      globalThis.queueMicrotask = microtask;
    }
    await this.#check();
  }

  #count(what: string, by = 1): void {
    this.#figures[what] = (this.#figures[what] ?? 0) + by;
  }

  #plan(at: number, phase: Phase, run: () => void): void {
    this.#actions.push({ at, phase, run });
  }

  /** Runs what is due in this phase; what waits for a phase that does not come, three steps later. */
  #act(phase: Phase): void {
    for (const action of [...this.#actions]) {
      const late = phase === 'step' ? this.#step - 3 : -1;
      if (!(action.phase === phase ? action.at <= this.#step : action.at <= late)) continue;
      this.#actions.splice(this.#actions.indexOf(action), 1);
      action.run();
    }
  }

  #tick(): void {
    this.#step++;
    this.#count('steps');
    try {
      const { waiting, paused, running, pages } = this.#stage.engine.stats();
      const { maxRows, maxWanted } = this.#schedule;
      assert.equal(pages.used + pages.cached + pages.free, pages.capacity, 'pages');
      assert.ok(pages.used >= 0 && pages.cached >= 0 && pages.free >= 0, 'pages');
      assert.ok(running <= Math.min(maxRows, maxWanted), 'too many run');
      assert.ok(paused <= waiting, 'paused ones wait');
      if (paused > 0) this.#count('steps with a pause');
      if (waiting > 0) this.#count('steps with somebody waiting');
    } catch (error) {
      this.#violation ??= error;
    }
    this.#act('step');
  }

  /** Until all has come and everybody has an answer. */
  async #drive(): Promise<void> {
    let [before, turns] = [-1, 0];
    for (;;) {
      const { waiting, running } = this.#stage.engine.stats();
      if (waiting + running === 0 && this.#actions.length > 0) this.#tick();
      else if (waiting + running + this.#open === 0 && this.#actions.length === 0) break;
      turns = before === this.#step ? turns + 1 : 0;
      before = this.#step;
      if (turns > MOST_TURNS || this.#step > MOST_STEPS) {
        this.#stage.engine.dispose().catch(() => {});
        assert.fail(`stuck at step ${this.#step}: ${JSON.stringify(this.#stage.engine.stats())}`);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(this.#work);
    if (this.#violation) throw this.#violation;
  }

  #begin(request: PlannedRequest): void {
    const prompt = promptOf(request.prompt);
    const { limit, speculate, priority, key } = request;
    const controller = new AbortController();
    const { contextLength } = this.#model.golden.prompts.files;
    const options: GenerateOptions = {
      ...optionsOf(request.options),
      ...('turns' in request.prompt && { contextShift: true }),
      ...(limit === 'timeout' && { timeoutMs: 1e-6 }),
      ...(limit === 'deadline' && { deadline: EPOCH + (request.at + 12) * 1000 }),
      ...{ speculate, priority, fairnessKey: `key ${key}` },
    };
    if (request.options.maxTokens > contextLength) throw new Error('a plan that is no plan');
    if (request.via === 'engine') {
      this.#submit(request, prompt, options);
      return;
    }
    const replies: Reply[] = [];
    const cancelAt = request.cancel && this.#step + request.cancel.after;
    if (request.cancel && cancelAt !== undefined)
      this.#plan(cancelAt, request.cancel.phase, () => {
        for (const reply of replies) if (reply.ended === undefined) reply.cancelled ??= this.#step;
        controller.abort();
      });
    const throwOnAbort = request.cancel?.twice ?? true;
    this.#open++;
    const read = this.#read(request, prompt, { ...options, signal: controller.signal, throwOnAbort }, replies);
    this.#work.push(read.finally(() => this.#open--));
  }

  #reply(request: PlannedRequest, prompt: Prompt, sample = 0): Reply {
    const { seed } = request.options;
    const reply: Reply = {
      ...{ request, prompt, submitted: this.#step, events: 0, text: '', prefill: 0, left: false },
      seed: sample === 0 ? seed : seedOfSample(seed, sample),
      tokens: [],
    };
    this.#replies.push(reply);
    return reply;
  }

  #submit(request: PlannedRequest, prompt: Prompt, options: GenerateOptions): void {
    const reply = this.#reply(request, prompt);
    const { vocab } = this.#model.golden.description.config;
    const settings = validateGenerate(options, { vocab, single: true });
    this.#open++;
    const listener = (event: GenerateEvent): void => {
      this.#hear(reply, event);
      if (event.type === 'done') this.#open--;
      if (reply.events === request.throws) throw new Error('a listener that throws');
    };
    const { waiting, running } = this.#stage.engine.stats();
    try {
      const ticket = this.#stage.engine.submit({ prompt, settings }, listener);
      const { maxQueue, maxRows, maxWanted } = this.#schedule;
      assert.ok(waiting + running < maxQueue + Math.min(maxRows, maxWanted), 'the line was full');
      const { cancel } = request;
      if (!cancel) return;
      const run = (): void => {
        if (reply.ended === undefined) reply.cancelled ??= this.#step;
        ticket.cancel();
        if (cancel.twice) ticket.cancel(new LanewiseError('Internal', 'the second cancellation is not heard'));
      };
      this.#plan(this.#step + cancel.after, cancel.phase, run);
      if (cancel.twice) this.#plan(this.#step + cancel.after + 1, 'step', run);
    } catch (error) {
      this.#open--;
      this.#end(reply, { error });
      if (codeOf(error) === 'Busy') assert.ok(waiting >= this.#schedule.maxQueue, 'Busy, and nobody waited');
    }
  }

  /** What each event must be after those before it. */
  #hear(reply: Reply, event: GenerateEvent): void {
    reply.events++;
    try {
      assert.equal(reply.ended, undefined, 'an event behind the end');
      if (event.type === 'prefill') {
        assert.equal(reply.tokens.length, 0, 'a prompt was read behind the first token');
        assert.ok(event.done > reply.prefill && event.done <= event.total, 'done rises up to the total');
        reply.prefill = event.done;
      } else if (event.type === 'token') {
        assert.ok(reply.prefill > 0, 'a token before the prompt was read');
        reply.tokens.push(bitsOf(event));
        reply.text += event.text;
      } else if (event.type === 'text') {
        assert.notEqual(event.text, '');
        reply.text += event.text;
      } else {
        assert.deepEqual(
          event.tokenIds,
          reply.tokens.map(([id]) => id),
        );
        assert.equal(event.text, reply.text, 'the pieces of the text');
        this.#end(reply, { result: event });
      }
    } catch (error) {
      this.#violation ??= error;
    }
  }

  #end(reply: Reply, { result, error }: { result?: GenerateResult; error?: unknown }): void {
    if (reply.ended !== undefined) this.#violation ??= new Error('a reply ended twice');
    reply.ended = this.#step;
    if (result) reply.result = result;
    const failed = error ?? result?.error;
    if (failed !== undefined) reply.error = failed;
  }

  async #read(request: PlannedRequest, prompt: Prompt, options: GenerateOptions, replies: Reply[]): Promise<void> {
    const reply = this.#reply(request, prompt);
    replies.push(reply);
    if (request.via === 'batch') await this.#readBatch(reply, options, replies);
    else if (request.via === 'talk' && !('turns' in request.prompt)) await this.#talk(reply, options, replies);
    else {
      const generation = this.#facade.generate(prompt, options);
      if (request.via === 'loop' || request.via === 'talk') await this.#loop(reply, generation, options);
      else await this.#settle(reply, generation, options, request.via === 'text');
    }
  }

  async #loop(reply: Reply, generation: ReturnType<Model['generate']>, options: GenerateOptions): Promise<void> {
    const { leave } = reply.request;
    try {
      if (leave === 0) {
        // Begun, and left before anything has come.
        void generation.result.catch(() => {});
        reply.left = true;
        await generation.return();
      }
      for await (const event of generation) {
        this.#hear(reply, event);
        if (reply.events !== leave || event.type === 'done') continue;
        reply.left = true;
        break;
      }
    } catch (error) {
      if (error !== options.signal?.reason) {
        if (reply.ended === undefined) this.#end(reply, { error });
        return;
      }
    }
    if (reply.ended === undefined) await this.#settle(reply, generation, options, false);
  }

  async #settle(
    reply: Reply,
    generation: ReturnType<Model['generate']>,
    options: GenerateOptions,
    text: boolean,
  ): Promise<void> {
    try {
      let pieces = '';
      if (text) for await (const piece of generation.textStream) pieces += piece;
      const result = await generation.result;
      if (text) assert.equal(pieces, result.text, 'the text stream');
      this.#end(reply, { result });
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      if (error === options.signal?.reason && reply.cancelled !== undefined) reply.ended = this.#step;
      else this.#end(reply, { error });
    }
  }

  async #readBatch(first: Reply, options: GenerateOptions, replies: Reply[]): Promise<void> {
    const { samples, leave } = first.request;
    for (let sample = 1; sample < samples; sample++) replies.push(this.#reply(first.request, first.prompt, sample));
    let events = 0;
    try {
      for await (const event of this.#facade.generateStream([first.prompt], { ...options, n: samples })) {
        this.#hear(replies[event.sample]!, event);
        if (++events === leave) break;
      }
    } catch (error) {
      if (error !== options.signal?.reason) throw error;
      // Where nothing could begin there is nothing to be told.
    }
    for (const reply of replies) {
      if (reply.ended !== undefined) continue;
      reply.left = true;
      reply.ended = this.#step;
    }
  }

  async #talk(first: Reply, options: GenerateOptions, replies: Reply[]): Promise<void> {
    using conversation = this.#facade.conversation();
    const generate = (reply: Reply): Promise<void> =>
      this.#loop(reply, conversation.generate(reply.prompt, options), options);
    await generate(first);
    if (!first.result || first.error || options.signal?.aborted) return;
    const { promptTokenIds, tokenIds } = first.result;
    const second = this.#reply(first.request, { tokenIds: [...promptTokenIds, ...tokenIds, 5, 6] });
    replies.push(second);
    await generate(second);
  }

  /** Somebody else's work on the same model. */
  async #holdPages({ kind, length, span }: PlannedRaw): Promise<void> {
    const tokenIds = Array.from({ length }, (_, i) => 3 + ((i * 7) % 50));
    let sequence: SequenceHandle | undefined;
    this.#heldPages++;
    this.#open++;
    try {
      if (kind === 'forward') await beside(() => drained(this.#facade.forward(tokenIds)));
      else {
        const own = this.#facade.sequence(length);
        sequence = own;
        const step = async (tokens: readonly number[]): Promise<void> => {
          await beside(() => this.#facade.step([{ sequence: own, tokens, wanted: true }]));
        };
        const wait = (steps: number): Promise<void> =>
          new Promise((resolve) => this.#plan(this.#step + steps, 'step', resolve));
        const rows = Math.min(this.#schedule.maxRows, length);
        for (let from = 0; from < length; from += rows) await step(tokenIds.slice(from, from + rows));
        await wait(span);
        // Prompts that begin alike may use its first block.
        own.truncate(Math.min(40, length - 1));
        await step([9, 10, 11]);
        await wait(3);
      }
    } catch (error) {
      if (codeOf(error) !== 'OutOfMemory') this.#violation ??= error;
    }
    sequence?.dispose();
    this.#open--;
  }

  async #check(): Promise<void> {
    for (const reply of this.#replies) await this.#checkReply(reply);
    const errors = this.#replies.map(({ error }) => error as LanewiseError | undefined);
    // Readers who left do not hear how it ended; a draw that fails ends all of its step.
    const unheard = this.#replies.filter(({ left, error }) => left && error === undefined).length;
    const undrawn = [...this.#failures].reduce((sum, [name, parts]) => sum + (name.includes('draw') ? parts : 0), 0);
    const numeric = errors.filter((error) => error?.code === 'NumericError').length;
    assert.ok(
      numeric <= this.#poisoned && numeric + unheard + undrawn >= this.#poisoned,
      `${numeric} of ${this.#poisoned} rows`,
    );
    for (const [message, parts] of this.#failures) {
      const failed = errors.filter((error) => error?.message === message).length;
      this.#count('injected failures');
      assert.ok(failed <= parts, `${message}: ${failed} requests failed, ${parts} took part`);
    }
    const { waiting, running, paused, pages } = this.#stage.engine.stats();
    assert.deepEqual({ waiting, running, paused, used: pages.used }, { waiting: 0, running: 0, paused: 0, used: 0 });
    this.#count('tokens found in the cache', pages.hitTokens);
    this.#count('evictions', pages.evictions);
    // Everything that is cached can go.
    this.#over = true;
    const { cache } = this.#stage.evaluator;
    const all = cache.sequence();
    await all.reserve(pages.capacity * PAGE);
    assert.equal(cache.stats().used, pages.capacity);
    all.release();
    assert.deepEqual([cache.stats().used, cache.stats().cached], [0, 0]);
  }

  async #checkReply(reply: Reply): Promise<void> {
    const { request, prompt, result, tokens, cancelled, left, error, submitted, ended } = reply;
    const { references } = this.#model;
    const extra = 'turns' in request.prompt && 'messages' in (prompt as object) ? { contextShift: true } : {};
    const options = { ...request.options, seed: reply.seed };
    const expected = await references.answer(prompt, options, extra);
    assert.notEqual(ended, undefined, 'a reply never ended');
    this.#count('replies');
    if (cancelled !== undefined && request.via === 'engine')
      assert.ok(ended! <= cancelled + 1, `cancelled in step ${cancelled}, ended in step ${ended}`);
    if (request.limit === 'deadline' && request.via === 'engine')
      assert.ok(ended! <= Math.max(submitted, request.at + 12) + 2, 'a deadline that was not heard');
    const reason = result?.finishReason;
    const code = codeOf(error);
    if (result && reason === expected.result.finishReason && code === codeOf(expected.result.error)) {
      this.#count(`equal to alone: ${reason}`);
      assert.deepEqual(result.tokenIds, expected.result.tokenIds, 'tokens');
      assert.equal(result.text, expected.result.text, 'text');
      assert.deepEqual(result.promptTokenIds, expected.result.promptTokenIds);
      assert.equal(result.stoppedBy, expected.result.stoppedBy);
      assert.equal(result.seed, expected.result.seed);
      if (reply.events > 0 && !left) assert.deepEqual(tokens, expected.tokens, 'log-probabilities');
    } else if (code !== undefined && code === codeOf(expected.result.error)) this.#count('equal to alone: error');
    else {
      this.#count(`ended early: ${reason === 'error' || !reason ? (code ?? 'left') : reason}`);
      if (code !== undefined) this.#checkError(code, error as Error);
      else if (reason === 'timeout') assert.notEqual(request.limit, 'none', 'a timeout that nobody set');
      else if (reason === 'aborted' || !reason)
        assert.ok(left || cancelled !== undefined, 'aborted, and nobody did it');
      else assert.equal(reason, expected.result.finishReason, 'finish reason');
      assert.deepEqual(tokens, expected.tokens.slice(0, tokens.length), 'log-probabilities');
      if (result && result.promptTokenIds.length > 0) {
        const count = result.tokenIds.length;
        assert.deepEqual(result.tokenIds, expected.result.tokenIds.slice(0, count), 'tokens');
        if (expected.result.stoppedBy === undefined || count < expected.result.tokenIds.length)
          assert.equal(result.text, references.textOf(prompt, expected, count, options), 'text so far');
      }
    }
    if (!result) return;
    const { promptTokens, completionTokens, cachedTokens, draftTokens = 0, acceptedDraftTokens = 0 } = result.usage;
    assert.equal(promptTokens, result.promptTokenIds.length);
    assert.equal(completionTokens, result.tokenIds.length);
    assert.ok(cachedTokens >= 0 && cachedTokens <= Math.max(0, promptTokens - 1), 'cachedTokens');
    assert.ok(acceptedDraftTokens <= draftTokens);
    this.#count('cachedTokens', cachedTokens);
    this.#count('accepted guesses', acceptedDraftTokens);
  }

  /** Errors come where they should, and nowhere else. */
  #checkError(code: string, { message }: Error): void {
    const { faults } = this.#schedule;
    if (code === 'NumericError') assert.ok(this.#poisoned > 0, message);
    else if (code === 'OutOfMemory')
      assert.ok(this.#heldPages > 0 || faults.some(({ kind }) => kind === 'memory'), message);
    else if (code === 'Internal') assert.ok(this.#failures.has(message), message);
    else assert.equal(code, 'Busy', message);
  }
}
