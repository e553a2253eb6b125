/** Feeds broken files to the readers for a while: `npm run fuzz -- --seconds 60 [--seed N]`. */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import * as gguf from '../test/unit/gguf-arbitrary.ts';
import * as safetensors from '../test/unit/safetensors-arbitrary.ts';

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } } });
const seconds = Number(values.seconds);
const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
if (!(seconds > 0) || !Number.isInteger(seed)) {
  console.error('error: --seconds must be a number above 0, --seed an integer');
  process.exit(2);
}

const ROUND = 20_000;
const start = performance.now();
const elapsed = (): number => (performance.now() - start) / 1000;
const formats = [
  { name: 'SafeTensors', ...safetensors, inputs: 0, loaded: 0 },
  { name: 'GGUF', ...gguf, inputs: 0, loaded: 0 },
];
for (let round = 0; elapsed() < seconds; round++) {
  const format = formats[round % formats.length]!;
  const property = fc.asyncProperty(format.mutants, async (bytes) => {
    format.inputs++;
    if (await format.checkMutant(bytes)) format.loaded++;
  });
  await fc.assert(property, {
    seed: (seed + round) | 0,
    numRuns: ROUND,
    interruptAfterTimeLimit: (seconds - elapsed()) * 1000,
  });
  const counts = formats.map(({ name, inputs, loaded }) => `${inputs} ${name} files, ${loaded} loaded`);
  console.error(`seed ${seed}: ${elapsed().toFixed(0)} s, ${counts.join('; ')}, all others refused in order`);
}
