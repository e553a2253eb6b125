/**
 * Measures the tile shapes of products on this machine, once: a few milliseconds per storage, on operands that stay in the
 * first-level cache. Results are kept if the host can. Shapes change the speed, never the bits.
 */
import { memoryRefused } from '../../../errors.ts';
import { LANES } from '../../../kernels/layout.ts';
import type { TileShape } from '../../../kernels/tile.ts';
import type { Storage } from '../../../quant/storage.ts';
import { Module } from '../../../wasm/assembler.ts';
import { reserveMemory, WASM_PAGE } from '../memory/memory.ts';
import type { WasmHost } from '../threads/host.ts';
import { type Choice, type ProductFamily, productFamily, type TileShapes } from './choice.ts';
import type { KernelNotes } from './kernel-notes.ts';

const candidates = (wide: boolean): readonly TileShape[] =>
  [4, 5, 6].map((tokens) => ({ tokens, lanes: wide ? 16 : 8 }));

/** Number of rows, a multiple of the rows of every candidate. */
const ROWS = 60;
const WEIGHT_BYTES = 12 * 1024;
const PAGES = 4;
/** Multiplications and additions of a candidate per turn: about 0.2 ms. */
const TURN = 2e7;
const TURNS = 8;
/** Smallest speedup for which the default shape is replaced; less is noise. */
const GAIN = 1.03;

/** Adds the best tile shapes of these storages to the choice, from notes or measured now. Unchanged if results are not kept. */
export function tuned(host: WasmHost, choice: Choice, storages: readonly Storage[], book: KernelNotes): Choice {
  if (!book.keeps) return choice;
  const tiles: TileShapes = {};
  for (const storage of storages) {
    const name = `tile ${choice.wide ? 'wide' : 'narrow'} ${choice.q8} ${choice.q4} ${storage}`;
    let index = book.get(name);
    if (index === undefined || !(index >= -1 && index < candidates(choice.wide).length)) {
      index = fastest(host, choice, productFamily(storage, choice));
      book.set(name, index);
    }
    const shape = candidates(choice.wide)[index];
    if (shape) tiles[storage] = shape;
  }
  return { ...choice, tiles };
}

/** Index of the fastest candidate, or -1 when none beats the default by more than noise. */
function fastest(host: WasmHost, choice: Choice, { shape, panel }: ProductFamily): number {
  const memory = reserveMemory(PAGES, PAGES, false);
  if (!memory) throw memoryRefused(PAGES * WASM_PAGE);
  const scratch = new WebAssembly.Global({ value: 'i32', mutable: false }, 0);
  const shapes = [shape, ...candidates(choice.wide)];
  const runs = shapes.map((candidate, index) => {
    const module = new Module();
    const { f, bytes, columns } = panel(module, candidate);
    const code = host.compile(module.encode({ maximum: PAGES, shared: false }, `${choice.wide} ${index}`), choice);
    const run = new WebAssembly.Instance(code, { env: { memory, scratch } }).exports[f.name] as (
      ...operands: number[]
    ) => void;
    const steps = Math.floor(WEIGHT_BYTES / bytes.w);
    const calls = Math.ceil(TURN / (2 * ROWS * LANES * steps * columns));
    return () => {
      const start = performance.now();
      for (let n = 0; n < calls; n++) run(65536, steps * bytes.x, 32768, 0, steps, ROWS);
      return performance.now() - start;
    };
  });
  const best = runs.map((run) => run());
  for (let turn = 0; turn < TURNS; turn++)
    for (const [index, run] of runs.entries()) best[index] = Math.min(best[index]!, run());
  const least = Math.min(...best);
  return best[0]! <= least * GAIN ? -1 : best.indexOf(least) - 1;
}
