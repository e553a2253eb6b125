/** Probes what the relaxed dot products of this machine compute, and chooses kernels accordingly. */

import { memoryRefused } from '../../../errors.ts';
import { constant, i32, Module, type V128, v } from '../../../wasm/assembler.ts';
import { reserveMemory, WASM_PAGE } from '../memory/memory.ts';
import type { WasmHost } from '../threads/host.ts';
import { type Choice, portable } from './choice.ts';

const memoryImport = { maximum: 1, shared: false };

/**
 * How the dot product interprets 200 in its 7-bit operand: as 200 (unsigned), as -56 (signed), or with sums that saturate at
 * int16. Probed at the width that will be used, because narrow and wide code may be different instructions.
 */
function eighthBit(host: WasmHost, wide: boolean): Choice['eighthBit'] | 'saturating' | 'missing' {
  const module = new Module();
  const f = module.func('probe', ['i32']);
  const p = f.param('i32', 0).get;
  const dot = (n: number): V128 =>
    i32.relaxedDotAdd(v.load32splat(p, 0), v.load(p, 16 + n * 16), i32.splat(constant(0)));
  const [low, high] = [f.local('v128'), f.local('v128')];
  f.emit(low.set(dot(0)), high.set(dot(1)), v.store(p, low.get, 64), v.store(p, high.get, 80));
  const bytes = module.encode(memoryImport, wide ? 'wide' : 'narrow');
  if (!WebAssembly.validate(bytes)) return 'missing';
  const memory = reserveMemory(1, 1, false);
  if (!memory) throw memoryRefused(WASM_PAGE);
  new Int8Array(memory.buffer, 0, 4).fill(-127);
  new Uint8Array(memory.buffer, 16, 32).fill(200);
  const scratch = new WebAssembly.Global({ value: 'i32', mutable: false }, 256);
  const { exports } = new WebAssembly.Instance(host.compile(bytes, { wide }), { env: { memory, scratch } });
  (exports.probe as (address: number) => void)(0);
  const sums = new Set(new Int32Array(memory.buffer, 64, 8));
  if (sums.size === 1 && sums.has(4 * -127 * 200)) return 'unsigned';
  return sums.size === 1 && sums.has(4 * -127 * -56) ? 'signed' : 'saturating';
}

/** The best choice for this machine, before any self-check. */
export function chooseKernels(host: WasmHost): Choice {
  const wide = host.widens;
  const bit = eighthBit(host, wide);
  if (bit === 'missing') return { ...portable, wide };
  // A saturating product is not a single instruction: pairs are faster.
  if (bit === 'saturating') return { wide, q8: 'pairs', q4: 'pairs', eighthBit: 'signed' };
  return { wide, q8: 'quads', q4: 'quads', eighthBit: bit };
}
