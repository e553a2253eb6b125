/** Prints this machine's ceilings: `npm run bench:roofs -- [--threads N]`. */
import { parseArgs } from 'node:util';
import { nodeHost } from '../src/backend/wasm/host-node.ts';
import { measureRoofs, type Rate } from '../src/backend/wasm/roof.ts';

const { values } = parseArgs({ options: { threads: { type: 'string' } } });
const host = nodeHost();
const threads = Number(values.threads ?? host.cores);
const roofs = await measureRoofs(host, { threads, wide: host.widens, q8: { neighbours: 2, flip: 0 } });
const show = (rate: Rate, unit: string): string =>
  `${(rate.best / 1e9).toFixed(1)} (${(rate.median / 1e9).toFixed(1)}) ${unit}`;
console.log(`${threads} threads, best (median)
read by one thread   ${show(roofs.readOne, 'GB/s')}
read by all          ${show(roofs.readAll, 'GB/s')}
f32 tile ${roofs.f32.tile}        ${show(roofs.f32, 'GFLOP/s')}
q8_0 tile ${roofs.q8.tile}       ${show(roofs.q8, 'GOP/s')}`);
