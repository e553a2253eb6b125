/** Requests in shared forwards: {admit, compose rows, forward, sample, emit, retire}, until all are done. */

import type { GenerateEvent, GenerateResult } from '../engine/generate.ts';
import type { Model, Prompt } from '../engine/model.ts';
import { LanewiseError, OutOfMemoryError } from '../errors.ts';
import { nextTurn } from '../event-loop.ts';
import { logPrefill } from '../profile/log.ts';
import type { GenerateSettings } from './generation-options.ts';
import { type KeptState, Run } from './run.ts';

/** What one sequence is to answer. */
export interface Request {
  readonly prompt: Prompt;
  /** Checked, or what is wrong with the options. */
  readonly settings: GenerateSettings | LanewiseError;
  readonly kept?: KeptState | undefined;
}

/** An event of the request with this number. */
export type RequestEvent = GenerateEvent & { readonly index: number };

/** A request with its number; `run` once it has been admitted. */
interface Job {
  readonly index: number;
  readonly request: Request;
  run?: Run;
}

interface Row {
  readonly job: Job;
  readonly run: Run;
  readonly tokens: readonly number[];
  readonly draft: readonly number[];
  readonly wanted: boolean | 'all';
}

/**
 * Events of all requests as they come. At most `maxSequences` run at once; others are admitted as these end. An error of one
 * request is its result. Where the cache has no memory left, the request admitted last gives its pages back and is computed
 * again later, to the same bits.
 * @throws LanewiseError Disposed
 */
export async function* runAll(
  model: Model,
  requests: readonly Request[],
): AsyncGenerator<RequestEvent, void, undefined> {
  const most = Math.min(model.maxRows, model.maxSequences);
  // Fewer where memory has run out; grows again as requests end.
  let limit = most;
  const waiting: Job[] = requests.map((request, index) => ({ index, request })).reverse();
  let active: Job[] = [];
  try {
    for (;;) {
      while (waiting.length > 0 && active.length < Math.floor(limit)) {
        const job = waiting.pop()!;
        const refused = admit(model, job, requests.length === 1);
        if (refused) yield { index: job.index, type: 'done', ...refused };
        else active.push(job);
      }
      for (const { run } of active) run!.checkAbort();
      const running = active.filter(({ run }) => run!.finishReason === undefined);
      const failures = new Map<Job, LanewiseError>();
      const { rows, suspended } = await compose(model, running, failures);
      if (suspended.length > 0) {
        waiting.push(...suspended);
        active = active.filter((job) => !suspended.includes(job));
        limit = active.length;
      }
      if (rows.length > 0) yield* forward(model, rows, failures);
      for (const { run } of active) run!.checkLimits();
      const ended = active.filter((job) => failures.has(job) || job.run!.finishReason !== undefined);
      limit = Math.min(most, limit + ended.length / limit);
      active = active.filter((job) => !ended.includes(job));
      for (const job of ended) yield* retire(job, failures.get(job));
      if (active.length === 0 && waiting.length === 0) return;
      await nextTurn();
    }
  } finally {
    for (const { run } of active) run?.release();
  }
}

/** Begins a request; its result where that is known already. */
function admit(model: Model, job: Job, one: boolean): GenerateResult | undefined {
  const { prompt, settings, kept } = job.request;
  if (job.run) return undefined;
  if (settings instanceof LanewiseError) return emptyResult('error', settings);
  // Of many requests those that wait are not even encoded.
  if (settings.signal?.aborted && !one) return emptyResult('aborted', undefined, settings.seed);
  try {
    job.run = new Run(model, prompt, settings, kept);
    return undefined;
  } catch (error) {
    if (!(error instanceof LanewiseError) || error.code === 'Disposed') throw error;
    return emptyResult('error', error, settings.seed);
  }
}

const emptyResult = (
  finishReason: 'aborted' | 'error',
  error: LanewiseError | undefined,
  seed = 0,
): GenerateResult => ({
  finishReason,
  ...(error && { error }),
  promptTokenIds: [],
  tokenIds: [],
  text: '',
  usage: { promptTokens: 0, completionTokens: 0, cachedTokens: 0 },
  seed,
  timings: { prefillMs: 0, decodeMs: 0, steps: [] },
});

/** Rows of the next forward: one of each request; the room that is left goes to prompts, first ones first, and drafts. */
async function compose(
  model: Model,
  running: readonly Job[],
  failures: Map<Job, LanewiseError>,
): Promise<{ rows: Row[]; suspended: Job[] }> {
  const jobs = [...running];
  const suspended: Job[] = [];
  const rows: Row[] = [];
  let room = model.maxRows - jobs.length;
  let logits = model.maxSequences - jobs.length;
  for (let i = 0; i < jobs.length; i++) {
    const job = jobs[i]!;
    const run = job.run!;
    const tokens = await run.reuse().then(
      () => run.next(room + 1),
      (error: unknown) => asError(error),
    );
    if (tokens instanceof LanewiseError) {
      failures.set(job, tokens);
      continue;
    }
    const draft = run.draft(Math.min(room + 1 - tokens.length, logits));
    const reserved = await reserve(run, run.sequence.length + tokens.length + draft.length);
    if (reserved instanceof OutOfMemoryError && jobs.length > 1) {
      const last = jobs.pop()!;
      last.run!.suspend();
      suspended.push(last);
      i--;
      continue;
    }
    if (reserved) {
      failures.set(job, reserved);
      continue;
    }
    room -= tokens.length + draft.length - 1;
    logits -= draft.length;
    const wanted = draft.length > 0 ? 'all' : run.missing === tokens.length;
    rows.push({ job, run, tokens, draft, wanted });
  }
  return { rows, suspended };
}

async function reserve(run: Run, positions: number): Promise<LanewiseError | undefined> {
  try {
    await run.sequence.reserve(positions);
    return undefined;
  } catch (error) {
    return asError(error);
  }
}

/** @throws what is no LanewiseError */
function asError(error: unknown): LanewiseError {
  if (error instanceof LanewiseError) return error;
  throw error;
}

/** One forward, and the tokens that its logits choose. */
async function* forward(
  model: Model,
  rows: readonly Row[],
  failures: Map<Job, LanewiseError>,
): AsyncGenerator<RequestEvent, void, undefined> {
  const start = performance.now();
  let logits: Awaited<ReturnType<Model['step']>>;
  try {
    logits = await model.step(
      rows.map(({ run: { sequence }, tokens, draft, wanted }) => ({ sequence, tokens: [...tokens, ...draft], wanted })),
    );
  } catch (error) {
    if (!(error instanceof LanewiseError) || (error.code === 'Disposed' && rows.length > 1)) throw error;
    for (const { job } of rows) failures.set(job, error);
    return;
  }
  const ms = performance.now() - start;
  let at = 0;
  for (const { job, run, draft, wanted } of rows) {
    run.spent += ms;
    const own = wanted ? logits.slice(at, (at += 1 + draft.length)) : [];
    const { index } = job;
    // An abort is heard before tokens are taken.
    if (run.settings.signal?.aborted) continue;
    const total = run.promptIds.length;
    if (run.reading) yield { index, type: 'prefill', done: Math.min(run.sequence.length, total), total };
    if (own.length === 0) continue;
    if (run.reading) logPrefill(total, run.spent);
    try {
      for (const event of run.takeAll(own, draft)) yield { index, ...event };
    } catch (error) {
      if (!(error instanceof LanewiseError)) throw error;
      failures.set(job, error);
    }
  }
}

/** Frees what an ended request holds, and tells its result. */
function* retire({ index, run }: Job, error: LanewiseError | undefined): Generator<RequestEvent, void, undefined> {
  run!.release();
  const rest = run!.flush();
  if (rest) yield { index, type: 'text', text: rest };
  const result = run!.result();
  yield { index, type: 'done', ...result, ...(error && { finishReason: 'error', error }) };
}
