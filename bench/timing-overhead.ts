/**
 * What watching costs: decode steps of one model with nothing on, with step timing, and with the debug log, in turns.
 *
 *   node bench/timing-overhead.ts MODEL_FOLDER [STEPS]
 */
import { configureLogging, load } from '../src/node.ts';

const [path, steps = '120'] = process.argv.slice(2);
const model = await load(path, { quantize: 'q8_0' });
const sequence = model.sequence();
const modes = {
  off: () => configureLogging('off', () => {}),
  timing: () => configureLogging('off', () => {}),
  'debug log': () => configureLogging('lanewise=debug', () => {}),
};
const samples = new Map(Object.keys(modes).map((name) => [name, [] as number[]]));
await model.step([{ sequence, tokens: [1, 2, 3, 4], wanted: true }]);
/** Steps of one mode's turn; the first one, which meets a log configured anew, does not count. */
const TURN = 8;
for (let step = 0; step < Number(steps); step += TURN) {
  for (const [name, enter] of Object.entries(modes)) {
    enter();
    model.timing = name === 'timing';
    for (let n = 0; n <= TURN; n++) {
      const start = performance.now();
      await model.step([{ sequence, tokens: [5 + ((step + n) % 50)], wanted: true }]);
      if (n > 0) samples.get(name)!.push(performance.now() - start);
    }
  }
}
const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;
const base = median(samples.get('off')!);
for (const [name, values] of samples) {
  const ms = median(values);
  console.log(`${name.padEnd(10)} ${ms.toFixed(3)} ms per step, ${((ms / base - 1) * 100).toFixed(2)} %`);
}
sequence.release();
await model.dispose();
