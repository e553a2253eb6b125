/** Feeds broken files to the readers for a while: `npm run fuzz -- --seconds 60 [--seed N]`. */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import { checkMutant, mutants } from '../test/unit/safetensors-arbitrary.ts';

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
let inputs = 0;
let loaded = 0;
for (let round = 0; elapsed() < seconds; round++) {
  const property = fc.asyncProperty(mutants, async (bytes) => {
    inputs++;
    if (await checkMutant(bytes)) loaded++;
  });
  await fc.assert(property, {
    seed: (seed + round) | 0,
    numRuns: ROUND,
    interruptAfterTimeLimit: (seconds - elapsed()) * 1000,
  });
  console.error(
    `seed ${seed}: ${inputs} files in ${elapsed().toFixed(0)} s, ${loaded} loaded, all others refused in order`,
  );
}
