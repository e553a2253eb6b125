/** Traces: the format, what is in them, the clocks of threads, and that they change no bit. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import type { WalkTimes } from '../../src/backend/backend.ts';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { LanewiseError, type LoadOptions, load, loadEncoder, OptionError, Trace, traceToFile } from '../../src/node.ts';
import { EventShape, tracks } from '../../src/profile/trace.ts';
import { encoderFolder } from '../models/encoder-support.ts';
import { Runner, wasm } from '../models/support.ts';
import { type CheckedTrace, checkTrace } from './trace-check.ts';

/** A folder without a model. */
const tokenizers = fileURLToPath(new URL('../golden/tokenizers', import.meta.url));

/** A trace in memory. */
function collecting(): { trace: Trace; text: () => string } {
  const pieces: Uint8Array[] = [];
  return {
    trace: new Trace((bytes) => pieces.push(bytes)),
    text: () => Buffer.concat(pieces).toString(),
  };
}

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'lanewise-trace-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

const prompts = ['Once upon a time', 'One day, a little girl', 'The old wizard'];

/** Texts of three requests at once, with and without a trace. */
async function generated(options: LoadOptions): Promise<readonly unknown[]> {
  await using model = await load(undefined, options);
  const results = await model.generateBatch(prompts, { maxTokens: 12, seed: 5, logprobs: 2 });
  return results.map(({ tokenIds, text }) => ({ tokenIds, text }));
}

const named = ({ spans }: CheckedTrace, name: string) => spans.filter((span) => span.name === name);

for (const inline of [true, false]) {
  test(`a trace of an engine ${inline ? 'in this thread' : 'of its own thread'}`, async () => {
    const { trace, text } = collecting();
    const results = await generated({ inline, threads: 2, quantize: 'q8_0', trace });
    assert.deepEqual(await generated({ inline, threads: 1, quantize: 'q8_0' }), results);
    await trace.end();
    const checked = checkTrace(text());
    assert.match([...checked.processes.values()].join(), /^lanewise .*stories/);
    for (const [name, thread, path] of [
      ['open files', 'load', ['load']],
      ['describe the model', 'load', ['load']],
      ['compile kernels', 'load', ['load']],
      ['read and pack weights', 'load', ['load']],
      ['read', 'thread 0', []],
      ['quantize', 'thread 0', []],
      ['read the tokenizer', 'engine', []],
      ['tokenize', 'engine', ['step', 'admit']],
      ['compose', 'engine', ['step']],
      ['prefill', 'engine', ['step']],
      ['decode', 'engine', ['step']],
      ['sample', 'engine', ['step']],
      ['forward', 'thread 1', []],
      ['layer[2]', 'thread 1', ['forward']],
      ['attention', 'thread 1', ['forward', 'layer[0]']],
      ['matmul q8_0', 'thread 1', ['forward', 'layer[0]', 'ffn']],
      ['summarize', 'thread 0', ['forward', 'projection']],
      ['draw', 'thread 0', []],
      ['wait', 'thread 1', ['forward', 'layer[0]', 'attention']],
    ] as const) {
      const found = named(checked, name).filter((span) => span.thread === thread);
      assert.ok(
        found.some((span) => span.path.join(' > ') === path.join(' > ')),
        `${name} of ${thread}, found in ${[...new Set(found.map((span) => span.path.join(' > ')))].join('; ')}`,
      );
    }
    const tokens = checked.events.filter(({ ph, name }) => ph === 'i' && name === 'token');
    assert.equal(tokens.length, 36);
    assert.equal(new Set(tokens.map(({ args }) => args!.request)).size, 3);
    const weights = new Set(named(checked, 'matmul q8_0').map(({ args }) => args!.weight));
    assert.ok(weights.has('layers.5.ffn.down'), [...weights].join(' '));
    // Each forward of the engine contains that of thread 0: one clock for all threads.
    const steps = checked.spans.filter(({ name }) => name === 'prefill' || name === 'decode');
    for (const { start, end, thread } of named(checked, 'forward')) {
      if (thread === 'thread 0') assert.ok(steps.some((step) => step.start <= start && end <= step.end));
    }
  });
}

test('no thread leaves a barrier before all have come to it: the clocks of threads agree', async () => {
  const runner = await Runner.open('llama-gqa-f16', wasm(3, portable));
  const { backend } = runner;
  try {
    await backend.cache.ensure(1);
    let barriers = 0;
    const onWalk = ({ records, threads }: WalkTimes): void => {
      for (const [i] of records.entries()) {
        const before = (n: number): number => (i === 0 ? threads[n]!.start : threads[n]!.ended(i - 1));
        for (const [n, times] of threads.entries()) assert.ok(times.ended(i) >= before(n));
        if (!threads.every((times, n) => times.arrived(i) >= before(n))) continue;
        barriers++;
        const arrived = threads.map((times) => times.arrived(i) + times.offset);
        const left = threads.map((times) => times.ended(i) + times.offset);
        // Times since 1970 are multiples of 0.00024 ms.
        assert.ok(Math.max(...arrived) <= Math.min(...left) + 0.001, `${arrived} ${left}`);
      }
    };
    for (let position = 0; position < 20; position++) {
      await backend.forward({
        tokens: Int32Array.of(position),
        positions: Int32Array.of(position),
        sequences: Int32Array.of(0),
        pages: [Int32Array.of(0)],
        wanted: Int32Array.of(0),
        onWalk,
      });
    }
    assert.ok(barriers > 100, `${barriers} barriers`);
  } finally {
    await runner.close();
  }
});

test('an encoder: texts are tokenized, then computed', async () => {
  const { trace, text } = collecting();
  const encoder = await loadEncoder(encoderFolder('modernbert'), { inline: true, trace });
  await encoder.embed(['A cat sat on the mat.', 'Cats like mats.']);
  await encoder.dispose();
  await trace.end();
  const checked = checkTrace(text());
  assert.equal(named(checked, 'tokenize').length, 2);
  assert.ok(named(checked, 'attention').some(({ thread }) => thread === 'thread 0'));
});

test('the reference backend and a draft model are traced too', async () => {
  const { trace, text } = collecting();
  const model = await load(undefined, { inline: true, backend: 'reference', draft: { quantize: 'q4_0' }, trace });
  await model.complete('One day', { maxTokens: 4, temperature: 0 });
  await model.dispose();
  await trace.end();
  const checked = checkTrace(text());
  assert.equal(checked.processes.size, 2);
  assert.ok(named(checked, 'matmul').length > 0);
});

test('a trace that ends while its engine lives has all events so far', async () => {
  const { trace, text } = collecting();
  await using model = await load(undefined, { trace });
  await model.complete('One day', { maxTokens: 3 });
  await trace.end();
  await model.complete('One day', { maxTokens: 3 });
  assert.equal(checkTrace(text()).events.filter(({ name }) => name === 'token').length, 3);
});

test('a load that fails leaves a valid trace', async () => {
  const { trace, text } = collecting();
  await assert.rejects(load(tokenizers, { inline: true, trace }), LanewiseError);
  await assert.rejects(load(undefined, { trace: {} as Trace }), OptionError);
  await trace.end();
  assert.equal(named(checkTrace(text()), 'load').length, 1);
});

test('times of kernels are written to the nanosecond, across pieces', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(2 ** 31), fc.nat(999_999), fc.nat(9_999_999)), { minLength: 1, maxLength: 3000 }),
      (times) => {
        const { trace, text } = collecting();
        const process = trace.process('x');
        const shape = new EventShape(process, 'kernel', 'a "name"', { weight: 'w' });
        const offset = trace.origin - performance.timeOrigin;
        for (const [ms, ns, length] of times) {
          const start = ms / 100 + ns / 1e6 + offset;
          process.complete(shape, tracks.threads, start, start + length / 1e6);
        }
        trace.endNow();
        const events = (JSON.parse(text()) as { ph: string; ts: number; dur: number }[]).filter(({ ph }) => ph === 'X');
        assert.equal(events.length, times.length);
        for (const [i, [ms, ns, length]] of times.entries()) {
          // Sums of milliseconds since the start of the process: some nanoseconds of rounding.
          assert.ok(Math.abs(events[i]!.ts - (ms * 10 + ns / 1e3)) < 0.02, `${events[i]!.ts}`);
          assert.ok(Math.abs(events[i]!.dur - length / 1e3) < 0.02);
        }
      },
    ),
    { numRuns: 20 },
  );
});

test('a file gets its name when it is complete; a folder that cannot be written is an error at once', async (t) => {
  const path = await folder(t);
  const file = join(path, 'trace.json');
  const trace = traceToFile(file);
  const model = await load(undefined, { inline: true, trace });
  await model.complete('One day', { maxTokens: 2 });
  assert.equal((await readdir(path)).includes('trace.json'), false);
  await model.dispose();
  await trace.end();
  assert.deepEqual(await readdir(path), ['trace.json']);
  checkTrace(await readFile(file, 'utf8'));
  for (const wrong of [join(path, 'none', 'trace.json'), path])
    assert.throws(
      () => traceToFile(wrong),
      (error) =>
        error instanceof LanewiseError && error.code === 'NotWritten' && /cannot be written/.test(error.message),
    );
});
