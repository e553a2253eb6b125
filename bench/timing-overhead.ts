/**
 * Measures the overhead of observation: decode steps of one model without, with step timing, and with the debug log, in
 * turns.
 *
 *   node bench/timing-overhead.ts MODEL_FOLDER [STEPS]
 */
import { configureLogging, load } from '../src/node.ts';

const [path, steps = '1600'] = process.argv.slice(2);
const model = await load(path, { inline: true, quantize: 'q8_0' });
const modes = {
  off: () => configureLogging('off', () => {}),
  timing: () => configureLogging('off', () => {}),
  'debug log': () => configureLogging('lanewise=debug', () => {}),
  // Same as the base: shows the accuracy of the method.
  'off again': () => configureLogging('off', () => {}),
};
const samples = new Map(Object.keys(modes).map((name) => [name, [] as number[]]));
/** Steps per turn: several times those between two writes of the log, so that the mean includes the writes. */
const TURN = 80;
for (let step = 0; step < Number(steps); step += TURN) {
  const turns = Object.entries(modes);
  if ((step / TURN) % 2) turns.reverse();
  for (const [name, enter] of turns) {
    enter();
    const options = { timing: name === 'timing' };
    const sequence = model.sequence();
    await model.step([{ sequence, tokens: [1, 2, 3, 4], wanted: true }]);
    const start = performance.now();
    for (let n = 0; n < TURN; n++) await model.step([{ sequence, tokens: [5 + (n % 50)], wanted: true }], options);
    samples.get(name)!.push((performance.now() - start) / TURN);
    sequence.dispose();
  }
}
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const base = samples.get('off')!;
for (const [name, values] of samples) {
  // Compared within each turn: the machine's speed drifts by more than the overhead.
  const cost = median(values.map((ms, turn) => ms / base[turn]! - 1));
  console.log(`${name.padEnd(10)} ${median(values).toFixed(3)} ms per step, ${(cost * 100).toFixed(2)} %`);
}
await model.dispose();
