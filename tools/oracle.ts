/**
 * Random schedules against the same requests alone, for as many as are wanted:
 * `npm run oracle -- --schedules 5000 [--seed N] [--one-thread]`.
 */
import { parseArgs } from 'node:util';
import { runOracle } from '../test/oracle/oracle.ts';

const { values } = parseArgs({
  options: {
    schedules: { type: 'string', default: '1000' },
    seed: { type: 'string' },
    'one-thread': { type: 'boolean', default: false },
  },
});
const count = Number(values.schedules);
const seed = values.seed === undefined ? undefined : Number(values.seed);
if (!(Number.isInteger(count) && count > 0) || (seed !== undefined && !Number.isInteger(seed))) {
  console.error('error: --schedules must be an integer above 0, --seed an integer');
  process.exit(2);
}
const start = performance.now();
const report = await runOracle({
  schedules: count,
  seed,
  oneThread: values['one-thread'],
  onSchedule(done) {
    if (done % 100 > 0) return;
    const seconds = (performance.now() - start) / 1000;
    const left = (seconds / done) * (count - done);
    console.error(`${done} of ${count} schedules, ${seconds.toFixed(0)} s, about ${left.toFixed(0)} s left`);
  },
});
const { message, ...rest } = report;
console.log(JSON.stringify({ seconds: Math.round((performance.now() - start) / 1000), ...rest }, null, 2));
if (message) console.error(message);
process.exit(report.failed ? 1 : 0);
