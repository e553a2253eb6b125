import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { getLogger } from '@logtape/logtape';
import { OptionError } from '../../src/errors.ts';
import { flushLog, logDecodeStep, logForward, logPrefill, wants, wantsForward } from '../../src/profile/log.ts';
import { configureLogging, parseDirectives } from '../../src/profile/logtape.ts';
import { createScopeTimer } from '../../src/profile/scopes.ts';

const steps = [
  { scope: 'embedding', op: 'embed' },
  { scope: 'layer[0].attention', op: 'matmul' },
  { scope: 'layer[0].ffn', op: 'matmul' },
  { scope: 'norm', op: 'norm' },
  { scope: 'projection', op: 'matmul' },
];
const times = [0.15, 10, 20.04, 0.6, 104].map((ms, step) => ({ step, ms }));

/** Logs every kind of event under the given directives and returns the lines. */
async function linesUnder(directives: string | undefined): Promise<string[]> {
  let text = '';
  let writes = 0;
  configureLogging(directives, (lines) => {
    text += lines;
    writes++;
  });
  logPrefill(5, 12.34);
  logDecodeStep(4, 8.1, 0.2);
  logForward(createScopeTimer(steps)(times), steps, times, () => ({
    text: 'q8_0 [1x768]x[3072x768]',
    bytes: 2_507_520,
  }));
  flushLog();
  getLogger(['lanewise', 'loader']).info('ready');
  getLogger(['lanewise', 'kernel']).warn('a kernel was replaced');
  await Promise.resolve();
  assert.ok(writes <= 1, 'lines of one turn are written at once');
  return text.split('\n').slice(0, -1);
}

const generator = [
  '[perf] generator.prefill tokens=5 12.3ms',
  '[perf] generator.decode_step token=4 model=8.1ms sample=0.20ms total=8.3ms',
];
const layers = ['[perf] layer[0].forward attention=10.0ms ffn=20.0ms'];
const model = ['[perf] model.forward embedding=0.15ms layers=30.0ms norm=0.60ms projection=104ms total=135ms'];
const warning = '[warn] lanewise.kernel: a kernel was replaced';
const info = '[info] lanewise.loader: ready';

test('warnings only, unless asked', async () => {
  assert.deepEqual(await linesUnder(undefined), [warning]);
  assert.equal(wantsForward(), undefined);
});

test('debug writes prefill, decode steps, forwards and layers', async () => {
  const expected = [...generator, ...layers, ...model, info, warning];
  assert.deepEqual(await linesUnder('lanewise=debug'), expected);
  assert.deepEqual(await linesUnder('DEBUG'), expected);
  assert.equal(wantsForward(), 'scopes');
});

test('trace adds the kernels with shape and rate', async () => {
  const lines = await linesUnder('lanewise=info,lanewise.kernel=trace');
  assert.equal(wantsForward(), 'steps');
  assert.equal(lines.length, steps.length + 2);
  assert.equal(lines[1], '[perf] kernel.matmul q8_0 [1x768]x[3072x768] 10.0ms (0.3 GB/s)');
  assert.deepEqual(lines.slice(-2), [info, warning]);
});

test('categories below one that is off or quiet can be louder', async () => {
  assert.deepEqual(await linesUnder('off, lanewise.layer=debug'), layers);
  assert.deepEqual(await linesUnder('debug,lanewise.layer=off,lanewise.generator=error'), [...model, info, warning]);
  assert.deepEqual(await linesUnder('error,lanewise.model'), model);
});

test('off writes nothing and describes no step', async () => {
  assert.deepEqual(await linesUnder('off'), []);
  assert.equal(wants('lanewise.kernel', 'trace'), false);
  logForward(createScopeTimer(steps)(times), steps, times, () => assert.fail('described although off'));
});

test('events of a generation are written within a moment, in order', async () => {
  let text = '';
  configureLogging('debug', (lines) => {
    text += lines;
  });
  logPrefill(5, 12.34);
  flushLog();
  getLogger(['lanewise', 'loader']).info('ready');
  logDecodeStep(4, 8.1, 0.2);
  await Promise.resolve();
  assert.equal(text, `${generator[0]}\n${info}\n`);
  for (const patience = Date.now() + 10_000; !text.includes('decode_step') && Date.now() < patience; ) await sleep(10);
  assert.equal(text, `${generator[0]}\n${info}\n${generator[1]}\n`);
});

test('the later of two directives for one category wins', () => {
  assert.equal(parseDirectives('debug,info').get('lanewise'), 'info');
  assert.equal(parseDirectives(' lanewise = Trace ,').get('lanewise'), 'trace');
});

for (const bad of ['debgu', 'lanewise=loud', 'lanewise=', '=info', 'other=debug', 'lanewise..x=info', 'constructor']) {
  test(`refuses ${bad}`, () => {
    assert.throws(
      () => parseDirectives(`info,${bad}`),
      (error) => {
        assert.ok(error instanceof OptionError);
        assert.equal(error.option, 'LANEWISE_LOG');
        assert.ok(error.message.includes(JSON.stringify(bad)) && !error.message.includes('\n'), error.message);
        return true;
      },
    );
  });
}
