/** Some random schedules, always the same ones; `npm run oracle -- --schedules 5000` plays others. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { runOracle } from './oracle.ts';

test('whatever comes, goes and breaks meanwhile, each reply has the bits of the same request alone', async () => {
  const { failed, message, figures } = await runOracle({ schedules: 80, seed: 13 });
  assert.ok(!failed, message ?? '');
  // Schedules in which little happens would show little.
  for (const what of [
    'steps with a pause',
    'steps with somebody waiting',
    'evictions',
    'cachedTokens',
    'accepted guesses',
    'injected failures',
    'listeners that threw',
    'equal to alone: stop',
    'equal to alone: contextLength',
    'equal to alone: error',
    'ended early: aborted',
    'ended early: timeout',
    'ended early: Busy',
    'ended early: NumericError',
  ])
    assert.ok(figures[what]! > 0, `no ${what}`);
  assert.ok(figures['equal to alone: length']! > 100);
});
