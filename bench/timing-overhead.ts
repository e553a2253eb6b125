/**
 * Measures the overhead of observation: decode steps of one model without, with step timing, with the debug log, and with a
 * trace to a file, in turns.
 *
 *   node bench/timing-overhead.ts MODEL [STEPS] [STEPS_PER_TURN]
 */
import { statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { configureLogging, load, traceToFile } from '../src/node.ts';

/** Default steps per turn: several times those between two writes of the log, so that the mean includes the writes. */
const [path, steps = '1600', turn = '80'] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), 'lanewise-overhead-'));
const file = join(folder, 'trace.json');
const trace = traceToFile(file);
const options = { inline: true, quantize: path?.endsWith('.gguf') ? 'none' : 'q8_0' } as const;
const model = await load(path, { ...options, trace });
const modes = {
  off: () => configureLogging('off', () => {}),
  timing: () => configureLogging('off', () => {}),
  'debug log': () => configureLogging('lanewise=debug', () => {}),
  trace: () => configureLogging('off', () => {}),
  // Same as the base: shows the accuracy of the method.
  'off again': () => configureLogging('off', () => {}),
};
const samples = new Map(Object.keys(modes).map((name) => [name, [] as number[]]));
const count = Number(turn);
for (let step = 0; step < Number(steps); step += count) {
  const turns = Object.entries(modes);
  if ((step / count) % 2) turns.reverse();
  for (const [name, enter] of turns) {
    enter();
    const options = { timing: name === 'timing' };
    trace.kernels = name === 'trace';
    const sequence = model.sequence();
    await model.step([{ sequence, tokens: [1, 2, 3, 4], wanted: true }]);
    const start = performance.now();
    for (let n = 0; n < count; n++) await model.step([{ sequence, tokens: [5 + (n % 50)], wanted: true }], options);
    samples.get(name)!.push((performance.now() - start) / count);
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
await trace.end();
const forwards = Math.ceil(Number(steps) / count) * (count + 1);
console.log(`trace: ${(statSync(file).size / forwards / 1e3).toFixed(0)} kB per step`);
await rm(folder, { recursive: true });
