/** Writes the embedded model to a GGUF file with 8-bit weights, prints the error, and generates from it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { embeddedModel, load, quantizeModel } from '../src/node.ts';

const folder = await mkdtemp(join(tmpdir(), 'lanewise-'));
const file = join(folder, 'stories-q8_0.gguf');
const { tensors } = await quantizeModel(embeddedModel, file, { to: 'q8_0', metrics: true });
for (const { name, from, dtype, error } of tensors.filter(({ dtype }) => dtype === 'Q8_0').slice(0, 4)) {
  console.log(`${name}: ${from} to ${dtype}, ${error()!.signalToNoise.toFixed(1)} dB`);
}

const model = await load(file);
const { text } = await model.complete('Once upon a time', { maxTokens: 20, temperature: 0 });
console.log(`Once upon a time${text}`);
await model.dispose();
await rm(folder, { recursive: true });
