/** Prints this machine's ceilings: `npm run bench:roofs -- [--threads N]`. */
import { parseArgs } from 'node:util';
import type { Rate } from '../src/backend/wasm/roof.ts';
import { measureMachine } from '../src/node.ts';

const { values } = parseArgs({ options: { threads: { type: 'string' } } });
const roofs = await measureMachine(values.threads === undefined ? undefined : Number(values.threads));
const show = (rate: Rate, unit: string): string =>
  `${(rate.best / 1e9).toFixed(1)} (${(rate.median / 1e9).toFixed(1)}) ${unit}`;
console.log(`${roofs.threads} threads, best (median)
read by one thread   ${show(roofs.readOne, 'GB/s')}
read by all          ${show(roofs.readAll, 'GB/s')}
f32 tile ${roofs.f32.tile}        ${show(roofs.f32, 'GFLOP/s')}
q8_0 tile ${roofs.q8.tile}       ${show(roofs.q8, 'GOP/s')}`);
