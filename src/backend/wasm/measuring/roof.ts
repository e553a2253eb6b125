/**
 * This machine's ceilings, measured: how fast memory is read, and how fast the products' inner kernels run on operands
 * that stay in the first-level cache. Compare only with timings of the same run: the speed of a machine varies.
 */
import { activationStride, LANES, type Q8Layout, stepsOf } from '../../../kernels/layout.ts';
import { formatPanel } from '../../../kernels/matmul-block.ts';
import { floatPanel } from '../../../kernels/matmul-float.ts';
import { q8Format, q8WidenedPanel } from '../../../kernels/q8.ts';
import { readKernel, readLines, readRecord, tileKernel, tileRecord } from '../../../kernels/roof.ts';
import type { TileShape } from '../../../kernels/tile.ts';
import type { Func, Module } from '../../../wasm/assembler.ts';
import { KernelSet } from '../lowering/kernel-set.ts';
import type { WasmHost } from '../threads/host.ts';
import { KernelRunner } from './kernel-runner.ts';

/** Units per second: bytes, or multiplications and additions. */
export interface Rate {
  readonly best: number;
  readonly median: number;
  readonly worst: number;
}

export interface Roofs {
  readonly threads: number;
  readonly vectorBits: 128 | 256;
  /** Memory, read by one thread and by all. */
  readonly readOne: Rate;
  readonly readAll: Rate;
  /** Best tile of each kind on all threads. */
  readonly f32: Rate & { readonly tile: string };
  readonly q8: Rate & { readonly tile: string };
}

export interface RoofOptions {
  readonly threads: number;
  readonly wide: boolean;
  readonly q8: Q8Layout;
  /** Must be far larger than all caches. */
  readonly readBytes?: number;
  readonly turns?: number;
}

/** Tiles whose sums fit 15 registers, at 128 or at 256 bits. */
const tileShapes: readonly TileShape[] = [
  { tokens: 4, lanes: 16 },
  { tokens: 5, lanes: 16 },
  { tokens: 6, lanes: 16 },
  { tokens: 4, lanes: 8 },
  { tokens: 6, lanes: 8 },
];
const K = 192;
const TILES = 2;
const TILE_CALLS = 4000;

interface Candidate {
  readonly label: string;
  readonly kernel: number;
  readonly words: Int32Array;
  /** Multiplications and additions of one run on one thread. */
  readonly operations: number;
}

export async function measureRoofs(host: WasmHost, options: RoofOptions): Promise<Roofs> {
  const { threads, wide, q8, readBytes = 512 * 2 ** 20, turns = 12 } = options;
  const kernels = new KernelSet();
  const read = kernels.index('roof', 'read', readKernel);
  const tile = (name: string, make: (module: Module) => Func): number =>
    kernels.index(`roof ${name}`, name, (module) => tileKernel(module, make(module)));
  const format = q8Format(q8);
  const tiles = tileShapes.map((shape) => ({
    shape,
    label: `${shape.tokens}x${shape.lanes}`,
    f32: tile(`f32 ${shape.tokens}x${shape.lanes}`, (module) => floatPanel(module, 'f32', shape).f),
    q8: tile(`q8 ${shape.tokens}x${shape.lanes}`, (module) =>
      q8.neighbours === 2 ? q8WidenedPanel(module, shape, 0).f : formatPanel(module, format, shape).f,
    ),
  }));

  const tileBytes = 2 ** 20;
  const all = await KernelRunner.open(host, kernels, { threads, wide, bytes: readBytes + tileBytes });
  const one = await KernelRunner.open(host, kernels, { threads: 1, wide, bytes: 0 }, all);
  try {
    const { memory, allocator } = all;
    // Memory is written before it is read: untouched pages all map to one page of zeros, which stays in the caches. 0.5 is
    // a valid operand of every kernel, also as a scale.
    const x = allocator.take('activations', 64 * 1024);
    const w = allocator.take('weights', tileBytes / 2);
    const from = allocator.take('the read buffer', readBytes);
    memory.f32(x, (from + readBytes - x) / 4).fill(0.5);
    const readWords = readRecord.words({ from, lines: readLines(readBytes) });

    const candidates = (storage: 'f32' | 'q8_0'): Candidate[] =>
      tiles.map((entry) => ({
        label: entry.label,
        kernel: storage === 'f32' ? entry.f32 : entry.q8,
        words: tileRecord.words({
          x,
          xStride: storage === 'f32' ? K * 4 : activationStride(format.activation, K),
          w,
          steps: stepsOf(storage, K),
          rows: TILES * entry.shape.tokens,
          calls: TILE_CALLS,
        }),
        operations: 2 * TILES * entry.shape.tokens * LANES * K * TILE_CALLS,
      }));
    const [readOne, readAll] = await rates(
      turns,
      [one, all].map((runner) => ({ units: readBytes, run: () => runner.run(read, readWords) })),
    );
    const peak = async (storage: 'f32' | 'q8_0'): Promise<Rate & { tile: string }> => {
      const named = candidates(storage);
      const measured = await rates(
        turns,
        named.map(({ kernel, words, operations }) => ({
          units: operations * threads,
          run: () => all.run(kernel, words),
        })),
      );
      const best = measured.reduce((top, rate, i) => (rate.best > measured[top]!.best ? i : top), 0);
      return { ...measured[best]!, tile: named[best]!.label };
    };
    return {
      threads,
      vectorBits: wide ? 256 : 128,
      readOne: readOne!,
      readAll: readAll!,
      f32: await peak('f32'),
      q8: await peak('q8_0'),
    };
  } finally {
    await one.close();
    await all.close();
  }
}

/** Candidates take turns, so that a slow phase of a shared machine hits all of them alike. `run` gives milliseconds. */
export async function rates(
  turns: number,
  candidates: readonly { readonly units: number; run(): Promise<number> }[],
): Promise<Rate[]> {
  const samples = candidates.map((): number[] => []);
  for (const { run } of candidates) await run();
  for (let turn = 0; turn < turns; turn++) {
    for (const [c, { units, run }] of candidates.entries()) samples[c]!.push((units * 1000) / (await run()));
  }
  return samples.map((values) => {
    values.sort((a, b) => a - b);
    return { best: values.at(-1)!, median: values[values.length >> 1]!, worst: values[0]! };
  });
}
