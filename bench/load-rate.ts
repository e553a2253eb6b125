/**
 * Measures how fast published weights are loaded as Q8_0: `node bench/load-rate.ts [--json FILE] [--only gemma3-1b]
 * [--repeat 3]`. The file is read once before, so that it is in the page cache, if it fits. The rate is input bytes
 * divided by the whole time of `load`, tokenizer and kernels included.
 */
import { createReadStream, existsSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { type Spread, spreadOf } from '../src/measure/statistics.ts';
import { load } from '../src/node.ts';
import { argumentsOf, countOf, namesOf } from './arguments.ts';
import { makeModel } from './make-model.ts';
import { benchModels, modelShape, type ShapeName, shapeNames } from './shapes.ts';

export interface LoadRow {
  readonly shape: ShapeName;
  readonly bytes: number;
  readonly ms: Spread;
  /** Rate of input bytes. */
  readonly gigabytes_per_second: Spread;
}

async function measure(shape: ShapeName, repeat: number): Promise<LoadRow> {
  const folder = path.join(benchModels, `${shape}-published`);
  const file = path.join(folder, 'model.safetensors');
  if (!existsSync(file)) {
    console.error(`writing ${folder}`);
    await makeModel(modelShape(shape), folder);
  }
  for await (const _ of createReadStream(file, { highWaterMark: 2 ** 22 }));
  const { size: bytes } = await stat(file);
  const times: number[] = [];
  for (let turn = 0; turn < repeat; turn++) {
    const start = performance.now();
    const model = await load(folder, { inline: true, quantize: 'q8_0' });
    times.push(performance.now() - start);
    await model.dispose();
  }
  return { shape, bytes, ms: spreadOf(times), gigabytes_per_second: spreadOf(times.map((ms) => bytes / ms / 1e6)) };
}

const { values } = argumentsOf({
  options: {
    json: { type: 'string' },
    only: { type: 'string', default: 'gemma3-1b' },
    repeat: { type: 'string', default: '3' },
  },
});
const shapes = namesOf('--only', values.only, shapeNames);
const repeat = countOf('--repeat', values.repeat);
const rows: LoadRow[] = [];
for (const shape of shapes) rows.push(await measure(shape, repeat));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
for (const { shape, bytes, ms, gigabytes_per_second: rate } of rows)
  console.log(
    `${shape}: ${(bytes / 1e9).toFixed(2)} GB in ${ms.median.toFixed(0)} ms, ${rate.median.toFixed(2)} GB/s (${rate.low.toFixed(2)} - ${rate.high.toFixed(2)})`,
  );
