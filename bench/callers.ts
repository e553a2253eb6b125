/**
 * One engine, many callers: what they share, how long they wait for each other, and what the cache saves.
 *
 *   node bench/callers.ts MODEL [--only batch,gap,turn,cancel,loop,hosting,restore] [--repeat 3] [--threads N] [--long 4096]
 *                         [--quantize POLICY] [--json FILE]
 *
 * batch    eight `generate()` calls at once against one `generateBatch` of eight: tokens per second, in turns
 * gap      time between tokens of a running text while another prompt of --long tokens is read; its rate against alone;
 *          the first token of a prompt of 50 tokens that comes meanwhile
 * turn     second turn of a conversation: 3,000 tokens known, 50 new, against a cold one
 * cancel   from cancelling to the pages being free, in the queue, in prefill and in decode
 * loop     delay of the caller's event loop while a hosted model reads 512 tokens and decodes
 * hosting  decode and first token of a hosted model against one in this thread, in turns
 * restore  a saved prefix of 3,000 tokens back into the cache: bytes per second
 *
 * MODEL is a folder or file; its words do not matter. Ratios are of one run; a busy machine is said on stderr.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type GenerateEvent, type GenerateOptions, type LoadOptions, load, type Model } from '../src/node.ts';
import { argumentsOf, countOf, namesOf, refuse } from './arguments.ts';
import type { CallersReport } from './callers-report.ts';

const parts = ['batch', 'gap', 'turn', 'cancel', 'loop', 'hosting', 'restore'] as const;
type Part = (typeof parts)[number];

const { values, positionals } = argumentsOf({
  allowPositionals: true,
  options: {
    only: { type: 'string', default: parts.join(',') },
    repeat: { type: 'string', default: '3' },
    threads: { type: 'string' },
    long: { type: 'string', default: '4096' },
    quantize: { type: 'string' },
    json: { type: 'string' },
  },
});
const [file] = positionals;
if (file === undefined || positionals.length > 1) refuse('one MODEL is expected');
const repeat = countOf('--repeat', values.repeat);
const long = countOf('--long', values.long, 256);
const threads = values.threads === undefined ? undefined : countOf('--threads', values.threads);
const report: CallersReport = { model: path.basename(file!).replace(/\.gguf$/, ''), load: loadavg()[0]! };

/** Tokens that no other prompt begins with. */
let prompts = 0;
function fresh(model: Model, count: number): { tokenIds: number[] } {
  const { vocab } = model.description.config;
  const start = prompts++;
  return { tokenIds: Array.from({ length: count }, (_, i) => (101 + start * 7919 + i * 37) % vocab) };
}

const greedy: GenerateOptions = { temperature: 0, ignoreEos: true };
const open = (options: LoadOptions = {}): Promise<Model> =>
  load(file, { threads, quantize: values.quantize, contextLength: long + 512, ...options });

const sorted = (list: readonly number[]): number[] => list.toSorted((a, b) => a - b);
const quantile = (list: readonly number[], share: number): number => {
  const all = sorted(list);
  return all[Math.min(all.length - 1, Math.floor(share * all.length))] ?? Number.NaN;
};
const median = (list: readonly number[]): number => quantile(list, 0.5);
const fixed = (value: number, digits = 1): string => value.toFixed(digits);
const say = (text: string): void => console.error(text);

async function each(events: AsyncIterable<GenerateEvent>, told: (event: GenerateEvent) => void): Promise<void> {
  for await (const event of events) told(event);
}

/** Milliseconds from now to each token. */
async function tokenTimes(model: Model, prompt: { tokenIds: number[] }, options: GenerateOptions): Promise<number[]> {
  const start = performance.now();
  const times: number[] = [];
  await each(model.generate(prompt, options), (event) => {
    if (event.type === 'token') times.push(performance.now() - start);
  });
  return times;
}

async function batchPart(): Promise<void> {
  await using model = await open({ contextLength: 512 });
  const options = { ...greedy, maxTokens: 64 };
  const rates: Record<'calls' | 'batch', number[]> = { calls: [], batch: [] };
  for (let turn = 0; turn <= 2 * repeat; turn++) {
    for (const way of turn % 2 ? (['calls', 'batch'] as const) : (['batch', 'calls'] as const)) {
      const eight = Array.from({ length: 8 }, () => fresh(model, 32));
      const start = performance.now();
      if (way === 'batch') await model.generateBatch(eight, options);
      else await Promise.all(eight.map((prompt) => model.complete(prompt, options)));
      // The first turn warms up.
      if (turn > 0) rates[way].push((8 * 64 * 1000) / (performance.now() - start));
    }
  }
  const ratio = median(rates.calls.map((rate, i) => rate / rates.batch[i]!));
  report.batch = { callsPerSecond: median(rates.calls), batchPerSecond: median(rates.batch), ratio };
  say(
    `batch: 8 calls ${fixed(median(rates.calls))} tokens/s, one batch ${fixed(median(rates.batch))}: ${fixed(ratio, 3)}`,
  );
}

async function gapPart(): Promise<void> {
  await using model = await open();
  const aloneTimes = await tokenTimes(model, fresh(model, long), { ...greedy, maxTokens: 1 });
  const alone = (long * 1000) / aloneTimes[0]!;
  const gaps: number[] = [];
  const rates: number[] = [];
  const firsts: number[] = [];
  const steps: number[] = [];
  for (let turn = 0; turn < repeat; turn++) {
    const stop = new AbortController();
    let last = performance.now();
    let reading = false;
    const running = each(
      model.generate(fresh(model, 16), { ...greedy, maxTokens: -1, signal: stop.signal, throwOnAbort: false }),
      (event) => {
        if (event.type !== 'token') return;
        const now = performance.now();
        if (reading) gaps.push(now - last);
        last = now;
      },
    );
    await new Promise((resolve) => setTimeout(resolve, 500));
    reading = true;
    const start = performance.now();
    const before = model.stats().steps.count;
    const reader = tokenTimes(model, fresh(model, long), { ...greedy, maxTokens: 1 });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const short = tokenTimes(model, fresh(model, 50), { ...greedy, maxTokens: 1 });
    firsts.push((await short)[0]!);
    await reader;
    rates.push((long * 1000) / (performance.now() - start));
    steps.push((performance.now() - start) / (model.stats().steps.count - before));
    reading = false;
    stop.abort();
    await running;
  }
  const own = (await tokenTimes(model, fresh(model, 50), { ...greedy, maxTokens: 1 }))[0]!;
  report.gap = {
    medianMs: median(gaps),
    p99Ms: quantile(gaps, 0.99),
    maxMs: Math.max(...gaps),
    promptPerSecond: median(rates),
    alonePerSecond: alone,
    share: median(rates) / alone,
    firstMs: median(firsts),
    ownMs: own,
    stepMs: median(steps),
    stepsWaited: (median(firsts) - own) / median(steps),
  };
  say(`gap: median ${fixed(median(gaps))} ms, p99 ${fixed(quantile(gaps, 0.99))}, max ${fixed(Math.max(...gaps))}`);
  say(`gap: prompt ${fixed(median(rates))} tokens/s, ${fixed((100 * median(rates)) / alone)} % of alone`);
  say(`gap: short prompt ${fixed(median(firsts))} ms, alone ${fixed(own)}, steps of ${fixed(median(steps))}`);
}

async function turnPart(): Promise<void> {
  await using model = await open();
  const rows: { cold: number; warm: number; cached: number }[] = [];
  for (let turn = 0; turn < repeat; turn++) {
    const first = fresh(model, 3000);
    const answer = await model.complete(first, { ...greedy, maxTokens: 8 });
    const second = { tokenIds: [...first.tokenIds, ...answer.tokenIds, ...fresh(model, 50).tokenIds] };
    const start = performance.now();
    const warm = await model.complete(second, { ...greedy, maxTokens: 1 });
    const warmMs = performance.now() - start;
    const other = fresh(model, second.tokenIds.length);
    const again = performance.now();
    await model.complete(other, { ...greedy, maxTokens: 1 });
    rows.push({ cold: performance.now() - again, warm: warmMs, cached: warm.usage.cachedTokens });
  }
  const share = median(rows.map(({ cold, warm }) => warm / cold));
  report.turn = { rows, share };
  say(
    `turn: first token of the second turn at ${fixed(share * 100)} % of a cold one, ${rows[0]!.cached} tokens cached`,
  );
}

async function cancelPart(): Promise<void> {
  await using model = await open();
  const waits: Record<string, number[]> = { queue: [], prefill: [], decode: [] };
  const stepsOf: number[] = [];
  for (let turn = 0; turn < 10 * repeat; turn++) {
    const phase = ['queue', 'prefill', 'decode'][turn % 3]!;
    const others =
      phase === 'queue'
        ? Array.from({ length: model.maxSequences }, () => model.generate(fresh(model, 8), { ...greedy, maxTokens: 8 }))
        : [];
    const running = others.map((other) => other.result);
    const stop = new AbortController();
    const events = model.generate(fresh(model, phase === 'prefill' ? Math.min(2000, model.contextLength - 16) : 16), {
      ...greedy,
      maxTokens: 400,
      signal: stop.signal,
      throwOnAbort: false,
    });
    const wanted = phase === 'decode' ? 'token' : 'prefill';
    let start = 0;
    const ended = events.result;
    if (phase === 'queue') await new Promise((resolve) => setImmediate(resolve));
    else
      for await (const event of events)
        if (event.type === wanted) {
          start = performance.now();
          stop.abort();
          break;
        }
    if (!stop.signal.aborted) start = performance.now();
    stop.abort();
    await ended;
    waits[phase]!.push(performance.now() - start);
    stepsOf.push(model.stats().steps.p99Ms);
    await Promise.all(running);
    if (model.stats().pages.used !== 0) throw new Error('pages are still in use');
  }
  const p99 = (phase: string): number => quantile(waits[phase]!, 0.99);
  report.cancel = {
    queue: p99('queue'),
    prefill: p99('prefill'),
    decode: p99('decode'),
    stepMs: Math.max(...stepsOf),
  };
  say(
    `cancel: p99 ms ${Object.entries(waits)
      .map(([name, list]) => `${name} ${fixed(quantile(list, 0.99))}`)
      .join(', ')}; longest step ${fixed(Math.max(...stepsOf))}`,
  );
}

async function loopPart(): Promise<void> {
  await using model = await open({ inline: false });
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await model.complete(fresh(model, 16), { ...greedy, maxTokens: 4 });
  delay.enable();
  for (let turn = 0; turn < repeat; turn++) await model.complete(fresh(model, 512), { ...greedy, maxTokens: 64 });
  delay.disable();
  report.loop = { p99Ms: delay.percentile(99) / 1e6 - 1, maxMs: delay.max / 1e6 - 1 };
  say(`loop: delay p99 ${fixed(delay.percentile(99) / 1e6 - 1)} ms, max ${fixed(delay.max / 1e6 - 1)} ms`);
}

async function hostingPart(): Promise<void> {
  await using inline = await open({ inline: true });
  await using hosted = await open({ inline: false });
  const ratios: number[] = [];
  const firsts: number[] = [];
  for (let turn = 0; turn <= 3 * repeat; turn++) {
    const ms: Record<'inline' | 'hosted', { first: number; decode: number }> = {} as never;
    for (const way of turn % 2 ? (['inline', 'hosted'] as const) : (['hosted', 'inline'] as const)) {
      const model = way === 'inline' ? inline : hosted;
      const times = await tokenTimes(model, fresh(model, 16), { ...greedy, maxTokens: 65 });
      ms[way] = { first: times[0]!, decode: (times[64]! - times[0]!) / 64 };
    }
    if (turn === 0) continue;
    ratios.push(ms.hosted.decode / ms.inline.decode);
    firsts.push(ms.hosted.first - ms.inline.first);
  }
  report.hosting = { decodeRatio: median(ratios), firstTokenMs: median(firsts) };
  say(`hosting: decode ${fixed(median(ratios), 3)} of inline, first token ${fixed(median(firsts))} ms later`);
}

async function restorePart(): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-callers-'));
  const saved = path.join(folder, 'prefix.cache');
  try {
    let prompt: { tokenIds: number[] };
    let expected: readonly number[];
    {
      await using model = await open();
      prompt = fresh(model, 3000);
      expected = (await model.complete(prompt, { ...greedy, maxTokens: 8 })).tokenIds;
      await model.saveCache(saved);
    }
    await using model = await open();
    const start = performance.now();
    const { bytes } = await model.restoreCache(saved);
    const ms = performance.now() - start;
    const again = await model.complete(prompt, { ...greedy, maxTokens: 8 });
    if (again.tokenIds.join() !== expected.join()) throw new Error('the restored cache gives another text');
    report.restore = { bytes, ms, gigabytesPerSecond: bytes / ms / 1e6, cachedTokens: again.usage.cachedTokens };
    say(
      `restore: ${fixed(bytes / 1e6)} MB in ${fixed(ms)} ms: ${fixed(bytes / ms / 1e6, 2)} GB/s, ${again.usage.cachedTokens} tokens cached`,
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

const all: Record<Part, () => Promise<void>> = {
  batch: batchPart,
  gap: gapPart,
  turn: turnPart,
  cancel: cancelPart,
  loop: loopPart,
  hosting: hostingPart,
  restore: restorePart,
};
if (loadavg()[0]! > 0.5) say(`other work is running (load ${fixed(loadavg()[0]!)}): these times will say little`);
for (const part of namesOf('--only', values.only, parts)) await all[part]();
console.log(JSON.stringify(report, undefined, 2));
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
