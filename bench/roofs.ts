/** Prints the limits of this machine: `npm run bench:roofs -- [--threads N] [--json FILE]`. */
import { writeFileSync } from 'node:fs';
import type { Rate } from '../src/backend/wasm/measuring/roof.ts';
import { measureMachine } from '../src/node.ts';
import { argumentsOf, countOf } from './arguments.ts';

const { values } = argumentsOf({ options: { threads: { type: 'string' }, json: { type: 'string' } } });
const roofs = await measureMachine(values.threads === undefined ? undefined : countOf('--threads', values.threads));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(roofs, null, 2)}\n`);
const show = ({ best, median, worst }: Rate, unit: string): string =>
  `${(median / 1e9).toFixed(1)} ${unit} (${(worst / 1e9).toFixed(1)} - ${(best / 1e9).toFixed(1)})`;
console.log(`${roofs.threads} threads, median (worst - best)
read by one thread   ${show(roofs.readOne, 'GB/s')}
read by all          ${show(roofs.readAll, 'GB/s')}
f32 tile ${roofs.f32.tile}        ${show(roofs.f32, 'GFLOP/s')}
q8_0 tile ${roofs.q8.tile}       ${show(roofs.q8, 'GOP/s')}`);
