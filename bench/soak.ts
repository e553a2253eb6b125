/**
 * Many clients on the embedded model for minutes: cancelled, malformed and slow ones among them. Every whole reply must be
 * that of the same request alone, nothing may be lost or left behind, memory may not grow.
 *
 *   npm run soak -- [--minutes 10] [--clients 96] [--threads N] [--inline] [--seed 1] [--seed-fault NAME]
 *
 * Progress goes to stderr, a report as JSON to stdout. Exit code 1 where a bound is broken. --seed-fault breaks one thing on
 * purpose, so that the bound that watches it must fail: reply, stuck, duplicate, cancel, malformed, pages, heap, resident,
 * model, block, handle.
 */
import { once } from 'node:events';
import { loadavg } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { type GenerateResult, LanewiseError, load, type Model } from '../src/node.ts';
import { argumentsOf, countOf, refuse } from './arguments.ts';
import { type Bound, memoryBounds, type Sample, slopeOf } from './soak/bounds.ts';
import { malformedOf, randomOf, requestOf, type SoakRequest } from './soak/requests.ts';

const faults = [
  ...['reply', 'stuck', 'duplicate', 'cancel', 'malformed', 'pages', 'heap', 'resident', 'model', 'block', 'handle'],
];
const { values } = argumentsOf({
  options: {
    minutes: { type: 'string', default: '10' },
    clients: { type: 'string', default: '96' },
    threads: { type: 'string' },
    inline: { type: 'boolean', default: false },
    seed: { type: 'string', default: '1' },
    'seed-fault': { type: 'string' },
  },
});
const minutes = Number(values.minutes);
if (!(minutes > 0)) refuse('--minutes must be a number above 0');
const fault = values['seed-fault'];
if (fault !== undefined && !faults.includes(fault)) refuse(`--seed-fault takes ${faults.join(', ')}`);
const clients = countOf('--clients', values.clients);
const random = randomOf(countOf('--seed', values.seed, 0));
const threads = values.threads === undefined ? {} : { threads: countOf('--threads', values.threads) };

const CANCELLED = 0.3;
const MALFORMED = 0.05;
const SLOW = 0.01;
/** Requests that come again and again, checked every time. */
const USUAL = 60;
/** Of others, so many are computed again at the end. */
const RECHECKED = 100;
const SAMPLE_MS = 2000;
const END_MS = 30_000;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const note = (text: string): void => console.error(text);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Kept {
  readonly request: SoakRequest;
  readonly bits: string;
}

/** What must be equal. */
const bitsOf = ({ finishReason, text, tokenIds, seed }: GenerateResult, logprobs: readonly number[] = []): string =>
  JSON.stringify([finishReason, text, tokenIds, seed, logprobs]);

const counts = {
  ...{ sent: 0, whole: 0, cancelled: 0, malformed: 0, busy: 0, slow: 0, tokens: 0, rechecked: 0 },
};
const wrong: string[] = [];
const broken = (what: string): void => {
  if (wrong.length < 20) wrong.push(what);
};
/** Requests sent whose end nobody heard. */
let open = 0;
let duplicates = 0;
let wrongReplies = 0;
let wrongErrors = 0;
let slowestCancel = 0;
const leaked: unknown[] = [];

/** Reads a reply to its end. @returns undefined where it was cancelled */
async function read(
  model: Model,
  { prompt, options }: SoakRequest,
  cancelAfter: number,
  slow: boolean,
): Promise<Kept | undefined> {
  const controller = new AbortController();
  let events = 0;
  let ends = 0;
  let cancelledAt = 0;
  let result: GenerateResult | undefined;
  const logprobs: number[] = [];
  const cancel = (): void => {
    cancelledAt = performance.now();
    if (fault !== 'cancel') controller.abort();
  };
  if (cancelAfter === 0) setImmediate(cancel);
  for await (const event of model.generate(prompt, { ...options, signal: controller.signal, throwOnAbort: false })) {
    if (event.type === 'token') logprobs.push(event.logprob);
    if (event.type === 'done') {
      ends++;
      result = event;
    }
    if (++events === cancelAfter) cancel();
    if (slow) await sleep(20);
  }
  if (fault === 'duplicate' && counts.sent % 50 === 0) ends++;
  if (ends !== 1) duplicates++;
  counts.tokens += logprobs.length;
  if (cancelledAt > 0 && result?.finishReason === 'aborted') {
    slowestCancel = Math.max(slowestCancel, performance.now() - cancelledAt);
    counts.cancelled++;
    return undefined;
  }
  // What was told before the cancellation came to the engine, and what it told meanwhile, is read yet.
  if (events > cancelAfter + 10 && !slow)
    broken(`a cancellation after ${cancelAfter} of ${events} events was not heard`);
  counts.whole++;
  return { request: { prompt, options }, bits: bitsOf(result!, logprobs) };
}

const usual = Array.from({ length: USUAL }, (_, secret) => requestOf(random, 1000 + secret));
const kept: Kept[] = [];
let expected: string[] = [];
let over = false;

async function one(model: Model): Promise<void> {
  const { contextLength } = model;
  if (random() < MALFORMED) {
    const { prompt, options, code } = malformedOf(random, contextLength);
    counts.malformed++;
    const found = await model.complete(prompt, fault === 'malformed' ? {} : options).then(
      () => 'no error',
      (error: unknown) => (error instanceof LanewiseError ? error.code : String(error)),
    );
    if (found !== code && found !== 'Busy') {
      wrongErrors++;
      broken(`expected the error ${code}, found ${found}`);
    }
    return;
  }
  const index = random() < 0.9 ? Math.floor(random() * USUAL) : undefined;
  const request = index === undefined ? requestOf(random, 10_000 + counts.sent) : usual[index]!;
  // In line, in prefill, in decode, behind the end.
  const cancelAfter = random() < CANCELLED ? Math.floor(random() ** 2 * 60) : Number.POSITIVE_INFINITY;
  const slow = random() < SLOW;
  if (slow) counts.slow++;
  if (fault === 'heap') leaked.push({ text: 'x'.repeat(100).split('') });
  if (fault === 'resident') leaked.push(Buffer.alloc(50_000, 1));
  if (fault === 'pages' && counts.sent % 200 === 1)
    await model
      .sequence()
      .reserve(1)
      .catch(() => {});
  if (fault === 'block' && counts.sent % 40 === 1) {
    const { user } = process.threadCpuUsage();
    while (process.threadCpuUsage().user < user + 300_000);
  }
  open++;
  counts.sent++;
  if (fault === 'stuck' && counts.sent % 100 === 50) return;
  try {
    const reply = await read(model, request, cancelAfter, slow);
    if (!reply) return;
    if (index === undefined) {
      if (kept.length < RECHECKED) kept.push(reply);
      else if (random() < 0.1) kept[Math.floor(random() * RECHECKED)] = reply;
    } else if (reply.bits !== expected[fault === 'reply' && counts.sent % 50 === 0 ? (index + 1) % USUAL : index]) {
      wrongReplies++;
      broken(`request ${index} had another reply: ${reply.bits.slice(0, 200)}`);
    }
  } catch (error) {
    if (error instanceof LanewiseError && error.code === 'Busy') {
      counts.busy++;
      await sleep(200 + 200 * random());
    } else {
      wrongErrors++;
      broken(`${error}`);
    }
  } finally {
    open--;
  }
}

async function client(model: Model): Promise<void> {
  while (!over) {
    await one(model);
    // Those that were refused at once come again later.
    await sleep(random() * 5);
  }
}

/** Each alone, in this thread, on caches of its own. */
async function alone(requests: readonly SoakRequest[]): Promise<string[]> {
  await using model = await load(undefined, { inline: true, threads: 1 });
  const bits: string[] = [];
  for (const request of requests) bits.push((await read(model, request, Number.POSITIVE_INFINITY, false))!.bits);
  return bits;
}

const resources = (): number => {
  const counted = process.getActiveResourcesInfo().filter((name) => name !== 'TTYWrap' && name !== 'PipeWrap');
  return counted.length;
};

expected = await alone(usual);
for (const name of Object.keys(counts)) counts[name as keyof typeof counts] = 0;
const resourcesBefore = resources();
const model = await load(undefined, { ...threads, inline: values.inline, maxQueue: 24, cacheTokens: 40 * 64 });
const bytes = (): number => Object.values(model.memory()).reduce((sum, part) => sum + part, 0);
const start = performance.now();
const seconds = (): number => (performance.now() - start) / 1000;
const total = minutes * 60;
const warmUp = total / 4;
const samples: Sample[] = [];
const peaks = { waiting: 0, paused: 0, running: 0 };
const delay = monitorEventLoopDelay({ resolution: 5 });
/**
 * CPU milliseconds of this thread between two ticks of a timer: as the delay, but without the time that a busy machine gave
 * to others.
 */
const turns: number[] = [];
let ticking: NodeJS.Timeout | undefined;
const watchTurns = (on: boolean): void => {
  clearInterval(ticking);
  if (!on) return;
  let before = process.threadCpuUsage();
  ticking = setInterval(() => {
    const now = process.threadCpuUsage();
    turns.push((now.user + now.system - before.user - before.system) / 1000);
    before = now;
  }, 5);
};
/** A thread that does nothing but measure the same: what the machine makes everybody wait. */
const idle = new Worker(
  `const { parentPort } = require('node:worker_threads');
   const delay = require('node:perf_hooks').monitorEventLoopDelay({ resolution: 5 });
   parentPort.on('message', (end) => {
     if (!end) return delay.enable();
     parentPort.postMessage({ p99: delay.percentile(99) / 1e6, max: delay.max / 1e6 });
     parentPort.close();
   });`,
  { eval: true },
);
const running = Array.from({ length: clients }, () => client(model));
let [said, warm] = [0, false];
while (seconds() < total) {
  await sleep(Math.min(SAMPLE_MS, total * 50));
  const { waiting, paused, running: active } = model.stats();
  for (const [name, value] of Object.entries({ waiting, paused, running: active }))
    peaks[name as keyof typeof peaks] = Math.max(peaks[name as keyof typeof peaks], value);
  if (seconds() < warmUp) continue;
  if (!warm) {
    warm = true;
    delay.enable();
    watchTurns(true);
    idle.postMessage(false);
  }
  // The collection of garbage holds the event loop: it is not what is measured.
  delay.disable();
  watchTurns(false);
  collect();
  const extra = fault === 'model' && seconds() > total / 2 ? 65536 : 0;
  samples.push({
    at: seconds(),
    rss: process.memoryUsage.rss(),
    heap: process.memoryUsage().heapUsed,
    model: bytes() + extra,
  });
  await sleep(1);
  delay.enable();
  watchTurns(true);
  if (seconds() - said < 15) continue;
  said = seconds();
  const left = Math.max(0, total - said);
  note(
    `${said.toFixed(0)} s, ${left.toFixed(0)} s left: ${counts.sent} requests, ${(counts.tokens / said).toFixed(0)} tokens/s, rss ${(samples.at(-1)!.rss / 1e6).toFixed(0)} MB`,
  );
}
delay.disable();
watchTurns(false);
turns.sort((a, b) => a - b);
const busy = { p99: turns[Math.floor(0.99 * turns.length)] ?? 0, max: turns.at(-1) ?? 0 };
const delayed = { p99: delay.percentile(99) / 1e6, max: delay.max / 1e6 };
idle.postMessage(true);
const [delayOfIdle] = (await once(idle, 'message')) as [typeof delayed];
over = true;
let late: NodeJS.Timeout | undefined;
const timeout = new Promise<void>((resolve) => {
  late = setTimeout(resolve, END_MS);
});
await Promise.race([Promise.all(running), timeout]);
clearTimeout(late);
await sleep(200);
// A last reply, so that the engine tells how it stands.
await model.complete('The end', { maxTokens: 1, temperature: 0 });
const stats = model.stats();
await model.dispose();
if (fault === 'handle') setInterval(() => {}, 1e6);
await sleep(200);
const resourcesAfter = resources();
note(`${kept.length} replies are computed again`);
const again = await alone(kept.map(({ request }) => request));
for (const [i, { bits }] of kept.entries()) {
  counts.rechecked++;
  if (bits === again[i]) continue;
  wrongReplies++;
  broken(`a sampled request had another reply: ${bits.slice(0, 200)}`);
}

const bounds: Bound[] = [
  { name: 'replies that differ from the same request alone', value: wrongReplies, most: 0, unit: '' },
  { name: 'requests that never ended', value: open, most: 0, unit: '' },
  { name: 'requests that ended other than once', value: duplicates, most: 0, unit: '' },
  { name: 'errors that should not be, or are missing', value: wrongErrors, most: 0, unit: '' },
  {
    name: 'longest wait for a cancellation',
    value: slowestCancel,
    most: Math.max(1000, 4 * stats.steps.p99Ms),
    unit: 'ms',
  },
  { name: 'cancellations that are missing', value: counts.cancelled > 0.1 * counts.whole ? 0 : 1, most: 0, unit: '' },
  { name: 'requests left in the engine', value: stats.waiting + stats.running + stats.paused, most: 0, unit: '' },
  { name: 'pages left in use', value: stats.pages.used, most: 0, unit: '' },
  { name: 'handles and timers left', value: Math.max(0, resourcesAfter - resourcesBefore), most: 0, unit: '' },
  // In this thread the forwards themselves hold it.
  ...(values.inline
    ? []
    : [
        { name: 'time for which the event loop was held, p99', value: busy.p99, most: 20, unit: 'ms' },
        { name: 'time for which the event loop was held, max', value: busy.max, most: 100, unit: 'ms' },
      ]),
  ...memoryBounds(samples),
];
const failed = bounds.filter(({ value, most }) => !(value <= most));
for (const { name, value, most, unit } of failed) note(`broken: ${name}: ${value.toFixed(2)} ${unit}, at most ${most}`);
for (const what of wrong) note(`  ${what}`);
const { slope, error } = slopeOf(samples, ({ rss }) => rss);
const report = {
  ...{ minutes, clients, inline: values.inline, load: loadavg()[0], counts, peaks, stats },
  eventLoop: { held: busy, delay: delayed, delayOfIdleThread: delayOfIdle },
  rss: { first: samples[0]?.rss, last: samples.at(-1)?.rss, slopePerMinute: slope, standardError: error },
  bounds: bounds.map((bound) => ({ ...bound, kept: bound.value <= bound.most })),
};
console.log(JSON.stringify(report, null, 2));
process.exit(failed.length > 0 ? 1 : 0);
