/**
 * Measures the kernels and the limits of the machine, in turns in one run:
 * `npm run bench:kernels -- [--threads N] [--turns 10] [--storages q4_0,iq4_nl] [--narrow] [--weights KIB] [--proofs FOLDER]
 * [--json FILE]`.
 *
 *   decode    one row times 256 MiB of weights: GB/s of weights, compared with a plain read of the same memory; --weights sets
 *             another size, such as 768 for weights that fit in the second-level cache
 *   prefill   512 rows times a [3072, 768] matrix: GOP/s, compared with the best tile on operands in the first-level cache
 *   others    512 rows of 768 values: GB/s read and written
 *
 * --narrow measures the 128-bit kernels and their limits. --proofs names a folder with prototypes of the matmul
 * kernels, whose benches are run too, with one thread.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { productFamily, q8Layout } from '../src/backend/wasm/choosing/choice.ts';
import { KernelNotes } from '../src/backend/wasm/choosing/kernel-notes.ts';
import { chooseKernels } from '../src/backend/wasm/choosing/probe.ts';
import { tuned } from '../src/backend/wasm/choosing/tune.ts';
import { KernelSet } from '../src/backend/wasm/lowering/kernel-set.ts';
import { KernelRunner } from '../src/backend/wasm/measuring/kernel-runner.ts';
import { measureRoofs, type Roofs, rates } from '../src/backend/wasm/measuring/roof.ts';
import { nodeHost } from '../src/backend/wasm/threads/host-node.ts';
import { renderTable } from '../src/cli/table.ts';
import { activateKernel, activateRecord } from '../src/kernels/activate.ts';
import { activationStride, groupBytes, groupsOf, LANES, padded, stepsOf } from '../src/kernels/layout.ts';
import { matmulRecord } from '../src/kernels/matmul.ts';
import { normKernel, normRecord } from '../src/kernels/norm.ts';
import { quantizeRowsKernel, quantizeRowsRecord } from '../src/kernels/quantize-rows.ts';
import { bitsOf } from '../src/kernels/record.ts';
import { readKernel, readLines, readRecord } from '../src/kernels/roof.ts';
import { isBlockStorage, type Storage } from '../src/quant/storage.ts';
import { argumentsOf, countOf } from './arguments.ts';

const allStorages: readonly Storage[] = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'iq4_nl', 'q4_k', 'q5_k', 'q6_k'];
const K = 768;
const ROWS = 512;
const PREFILL_OUT = 3072;

interface Result {
  readonly kernel: string;
  readonly phase: 'decode' | 'prefill' | 'other';
  readonly threads: number;
  readonly unit: 'GB/s' | 'GOP/s';
  readonly best: number;
  readonly median: number;
  readonly of_roof: number | null;
  /** Best rate of the prototype's bench, with one thread. */
  readonly proof: number | null;
}

interface Candidate {
  readonly kernel: string;
  /** Bytes, or multiplications and additions, per run. */
  readonly units: number;
  run(): Promise<number>;
}

const { values } = argumentsOf({
  options: {
    threads: { type: 'string' },
    turns: { type: 'string', default: '10' },
    storages: { type: 'string', default: allStorages.join() },
    narrow: { type: 'boolean', default: false },
    weights: { type: 'string', default: `${256 * 1024}` },
    proofs: { type: 'string' },
    json: { type: 'string' },
  },
});
const named = values.storages.split(',');
const storages = allStorages.filter((storage) => named.includes(storage));
const weightBytes = countOf('--weights', values.weights, 256) * 1024;
const node = nodeHost();
const host = { ...node, widens: node.widens && !values.narrow };
/** Tile shapes as chosen for a model on this machine, measured now. */
const choice = tuned(
  host,
  chooseKernels(host),
  storages,
  new KernelNotes({ machine: '', read: () => undefined, write: () => {} }),
);

/** Measures everything with a given number of threads. */
async function measure(threads: number, turns: number, proofs: Proofs): Promise<Result[]> {
  const kernels = new KernelSet();
  const families = storages.map((storage) => ({ storage, ...productFamily(storage, choice) }));
  const products = families.map(({ storage, emit }) => kernels.index(`matmul ${storage}`, storage, emit));
  const read = kernels.index('roof', 'read', readKernel);
  const rms = { kind: 'rms', weighted: true, biased: false } as const;
  const norm = kernels.index('norm', 'rms', (module) => normKernel(module, rms));
  const gelu = kernels.index('activate', 'gelu_tanh', (module) => activateKernel(module, 'gelu_tanh', false));
  const { activation } = productFamily('q8_0', choice);
  const quantize = kernels.index('quantize', 'rows', (module) => quantizeRowsKernel(module, activation!, 'rows'));

  const runner = await KernelRunner.open(host, kernels, {
    threads,
    wide: choice.wide,
    bytes: weightBytes + 64 * 2 ** 20,
  });
  try {
    const { allocator, memory } = runner;
    const take = (bytes: number): number => allocator.take('operands', bytes);
    const [one, many] = [take(4), take(4)];
    const [vector, x, out] = [take(K * 4), take(ROWS * K * 4), take(ROWS * PREFILL_OUT * 4)];
    const w = take(weightBytes);
    // 0.5 is a valid operand of every kind, scales included.
    memory.f32(vector, (w + weightBytes - vector) / 4).fill(0.5);
    memory.i32(one, 1)[0] = 1;
    memory.i32(many, 1)[0] = ROWS;

    const product = (index: number, rows: number, outWidth: number): Candidate['run'] => {
      const { storage, activation: format } = families[index]!;
      const bytes = groupBytes(storage, K);
      const words = matmulRecord.words({
        x,
        xStride: format ? activationStride(format, K) : K * 4,
        w,
        groupBytes: bytes,
        bias: 0,
        out,
        outStride: padded(outWidth) * 4,
        steps: stepsOf(storage, K),
        groups: groupsOf(outWidth),
        rows: rows === 1 ? one : many,
        add: 0,
      });
      return () => runner.run(products[index]!, words);
    };
    const decode = storages.map((storage, index): Candidate => {
      const groups = Math.floor(weightBytes / groupBytes(storage, K));
      return {
        kernel: `matmul ${storage}`,
        units: groups * groupBytes(storage, K),
        run: product(index, 1, groups * LANES),
      };
    });
    const readWords = readRecord.words({ from: w, lines: readLines(weightBytes) });
    const plain: Candidate = { kernel: 'plain read', units: weightBytes, run: () => runner.run(read, readWords) };
    const prefill = storages.map(
      (storage, index): Candidate => ({
        kernel: `matmul ${storage}`,
        units: 2 * ROWS * PREFILL_OUT * K,
        run: product(index, ROWS, PREFILL_OUT),
      }),
    );
    const rowWise = { x, out, rows: many, width: K };
    const other = (kernel: string, index: number, words: Int32Array, bytesOut: number): Candidate => ({
      kernel,
      units: ROWS * (K * 4 + bytesOut),
      run: () => runner.run(index, words),
    });
    const quantizedStride = activationStride(activation!, K);
    const others = [
      other(
        'norm rms',
        norm,
        normRecord.words({ ...rowWise, weight: vector, bias: 0, groups: 1, weightStep: 0, eps: bitsOf(1e-5) }),
        K * 4,
      ),
      other('gelu_tanh', gelu, activateRecord.words({ ...rowWise, up: 0 }), K * 4),
      other(
        'quantize rows',
        quantize,
        quantizeRowsRecord.words({ ...rowWise, outStride: quantizedStride }),
        quantizedStride,
      ),
    ];

    const roofs = await measureRoofs(host, { threads, wide: choice.wide, q8: q8Layout(choice), turns });
    const decodeRates = await rates(turns, [plain, ...decode]);
    const prefillRates = await rates(turns, prefill);
    const otherRates = await rates(turns, others);
    const result = (
      { kernel }: Candidate,
      phase: Result['phase'],
      { best, median }: { best: number; median: number },
      roof: number | null,
    ): Result => ({
      kernel,
      phase,
      threads,
      unit: phase === 'prefill' ? 'GOP/s' : 'GB/s',
      best: best / 1e9,
      median: median / 1e9,
      of_roof: roof === null ? null : median / roof,
      proof: threads === 1 ? (proofs.get(`${phase} ${kernel}`) ?? null) : null,
    });
    return [
      ...[plain, ...decode].map((candidate, i) => result(candidate, 'decode', decodeRates[i]!, decodeRates[0]!.median)),
      ...prefill.map((candidate, i) => result(candidate, 'prefill', prefillRates[i]!, tileRoof(roofs, storages[i]!))),
      ...others.map((candidate, i) => result(candidate, 'other', otherRates[i]!, null)),
    ];
  } finally {
    await runner.close();
  }
}

/** Rate of the tile loop with the same arithmetic, null if there is none: floats are widened to f32. */
function tileRoof(roofs: Roofs, storage: Storage): number | null {
  if (storage === 'q8_0') return roofs.q8.median;
  return isBlockStorage(storage) ? null : roofs.f32.median;
}

/** `phase kernel` -> best rate of the prototype at this vector width, in the unit of the results. */
type Proofs = ReadonlyMap<string, number>;

function runProofs(folder: string | undefined): Proofs {
  if (folder === undefined) return new Map();
  const best = (script: string, line: RegExp, rate: RegExp): number => {
    const { stdout } = spawnSync(process.execPath, [path.join(folder, script)], { encoding: 'utf8' });
    const found = stdout.split('\n').flatMap((text) => (line.test(text) ? [Number(rate.exec(text)?.[1])] : []));
    return Math.max(...found);
  };
  const width = choice.wide ? 'wide' : 'narrow';
  const tileRate = RegExp(`${width}\\s+([\\d.]+)`);
  const memoryRate = RegExp(`RAM:.*${width}\\s+([\\d.]+)`);
  return new Map([
    ['prefill matmul f32', best('f32-tile.ts', /strict/, tileRate)],
    ['prefill matmul q8_0', best('q8-tile.ts', RegExp(`^q8 ${choice.q8}`), tileRate)],
    ['prefill matmul q4_0', best('q4-tile.ts', RegExp(`^q4 ${choice.q4}`), tileRate)],
    ['decode plain read', best('f32-matvec.ts', /^plain read/, memoryRate)],
    ['decode matmul f32', best('f32-matvec.ts', /^f32/, memoryRate)],
    ['decode matmul f16', best('f16-matvec.ts', /^f16/, memoryRate)],
    ['decode matmul q8_0', best('q8-matvec.ts', RegExp(`^q8 ${choice.q8}`), memoryRate)],
    ['decode matmul q4_0', best('q4-matvec.ts', RegExp(`^q4 ${choice.q4}`), memoryRate)],
  ]);
}

const percent = (share: number): string => `${(share * 100).toFixed(0)}%`;

async function main(): Promise<void> {
  const most = values.threads === undefined ? host.cores : countOf('--threads', values.threads);
  const proofs = runProofs(values.proofs);
  const results: Result[] = [];
  for (const threads of new Set([1, most]))
    results.push(...(await measure(threads, countOf('--turns', values.turns), proofs)));
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
  const right = (title: string) => ({ title, align: 'right' as const });
  console.log(
    renderTable(
      [
        { title: 'Kernel' },
        { title: 'Phase' },
        right('Threads'),
        right('Best'),
        right('Median'),
        right('Of roof'),
        right('Prototype'),
        right('Of prototype'),
      ],
      results.map(({ kernel, phase, threads, unit, best, median, of_roof, proof }) => [
        kernel,
        phase,
        `${threads}`,
        `${best.toFixed(1)} ${unit}`,
        `${median.toFixed(1)} ${unit}`,
        of_roof === null ? '' : percent(of_roof),
        proof === null ? '' : proof.toFixed(1),
        proof === null ? '' : percent(best / proof),
      ]),
    ),
  );
}

await main();
