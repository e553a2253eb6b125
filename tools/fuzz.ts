/** Fuzzes the readers of files: `npm run fuzz -- --seconds 60 [--seed N]`. */
import { parseArgs } from 'node:util';
import fc from 'fast-check';
import * as gguf from '../test/unit/gguf-arbitrary.ts';
import * as safetensors from '../test/unit/safetensors-arbitrary.ts';
import * as tokenizers from '../test/unit/tokenizer-arbitrary.ts';

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

interface Mutants<T> {
  readonly mutants: fc.Arbitrary<T>;
  /** Returns whether the input was accepted; throws if it was refused with an unexpected error. */
  checkMutant(mutant: T): boolean | Promise<boolean>;
}

function countedProperty<T>(name: string, { mutants, checkMutant }: Mutants<T>) {
  const counts = { name, inputs: 0, loaded: 0 };
  const property = fc.asyncProperty(mutants, async (mutant) => {
    counts.inputs++;
    if (await checkMutant(mutant)) counts.loaded++;
  });
  return { counts, property };
}

const formats = [
  countedProperty('SafeTensors', safetensors),
  countedProperty('GGUF', gguf),
  countedProperty('tokenizer.json', tokenizers),
];
for (let round = 0; elapsed() < seconds; round++) {
  const { property } = formats[round % formats.length]!;
  await fc.assert(property as fc.IAsyncProperty<unknown>, {
    seed: (seed + round) | 0,
    numRuns: ROUND,
    interruptAfterTimeLimit: (seconds - elapsed()) * 1000,
  });
  const summary = formats.map(({ counts: { name, inputs, loaded } }) => `${inputs} ${name} files, ${loaded} loaded`);
  console.error(`seed ${seed}: ${elapsed().toFixed(0)} s, ${summary.join('; ')}, all others refused in order`);
}
