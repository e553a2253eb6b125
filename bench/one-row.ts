/**
 * Rates of products from memory, by storage, also beside other programs:
 * `node bench/one-row.ts [--storages f16,q8_0] [--rows 1] [--threads 1] [--narrow] [--seconds 8]`.
 *
 * Every storage, and a plain read, takes the next piece of 480 MiB in turns: 1 MiB, or 256 KiB with more rows. A piece takes
 * about 0.1 ms, so that most are not interrupted; rates are the 10th percentile of times and the median.
 */
import { type Choice, productFamily } from '../src/backend/wasm/choosing/choice.ts';
import { chooseKernels } from '../src/backend/wasm/choosing/probe.ts';
import { KernelSet } from '../src/backend/wasm/lowering/kernel-set.ts';
import { KernelRunner } from '../src/backend/wasm/measuring/kernel-runner.ts';
import { nodeHost } from '../src/backend/wasm/threads/host-node.ts';
import { renderTable } from '../src/cli/table.ts';
import { activationStride, groupBytes, LANES, padded, stepsOf } from '../src/kernels/layout.ts';
import { matmulRecord } from '../src/kernels/matmul.ts';
import { readKernel, readLines, readRecord } from '../src/kernels/roof.ts';
import { type Storage, storageLayout } from '../src/quant/storage.ts';
import { argumentsOf, countOf, namesOf } from './arguments.ts';

const K = 1024;
const ALL_BYTES = 480 * 2 ** 20;

const all = Object.keys(storageLayout) as Storage[];
const { values } = argumentsOf({
  options: {
    storages: { type: 'string', default: all.join() },
    rows: { type: 'string', default: '1' },
    threads: { type: 'string', default: '1' },
    narrow: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '8' },
  },
});
const storages = namesOf('--storages', values.storages, all);
const rows = countOf('--rows', values.rows);
const threads = countOf('--threads', values.threads);
const pieceBytes = (rows === 1 ? 1024 : 256) * 1024;

const node = nodeHost();
const host = { ...node, widens: node.widens && !values.narrow };
const choice: Choice = chooseKernels(host);
const kernels = new KernelSet();
const read = kernels.index('roof', 'read', readKernel);
const families = storages.map((storage) => ({ storage, ...productFamily(storage, choice) }));
const products = families.map(({ storage, emit }) => kernels.index(`matmul ${storage}`, storage, emit));
const groupsOf = (storage: Storage): number => Math.floor(pieceBytes / groupBytes(storage, K));
const mostOut = Math.max(...storages.map(groupsOf)) * LANES;

const bytes = ALL_BYTES + rows * (K + mostOut) * 4 + 2 ** 20;
const runner = await KernelRunner.open(host, kernels, { threads, wide: choice.wide, bytes });
const { allocator, memory } = runner;
const count = allocator.take('rows', 4);
memory.i32(count, 1)[0] = rows;
const x = allocator.take('x', rows * K * 4);
const out = allocator.take('out', rows * mostOut * 4);
const w = allocator.take('w', ALL_BYTES);
// 0.5 is a valid operand of every kind, scales included.
memory.f32(w, ALL_BYTES / 4).fill(0.5);
memory.f32(x, rows * K).fill(0.5);

interface Candidate {
  readonly name: string;
  readonly bytes: number;
  /** Multiplications and additions. */
  readonly operations: number;
  run(at: number): Promise<number>;
}

const candidates: Candidate[] = [
  {
    name: 'plain read',
    bytes: pieceBytes,
    operations: 0,
    run: (at) => runner.run(read, readRecord.words({ from: at, lines: readLines(pieceBytes) })),
  },
  ...families.map(({ storage, activation }, i): Candidate => {
    const [groups, perGroup] = [groupsOf(storage), groupBytes(storage, K)];
    const words = (at: number) =>
      matmulRecord.words({
        x,
        xStride: activation ? activationStride(activation, K) : K * 4,
        w: at,
        groupBytes: perGroup,
        bias: 0,
        out,
        outStride: padded(groups * LANES) * 4,
        steps: stepsOf(storage, K),
        groups,
        rows: count,
        add: 0,
      });
    const name = `matmul ${storage}`;
    const operations = 2 * rows * groups * LANES * K;
    return { name, bytes: groups * perGroup, operations, run: (at) => runner.run(products[i]!, words(at)) };
  }),
];

const times = candidates.map((): number[] => []);
const end = performance.now() + 1000 * countOf('--seconds', values.seconds);
for (let piece = 0; performance.now() < end; )
  for (const [i, candidate] of candidates.entries())
    times[i]!.push(await candidate.run(w + (piece++ % (ALL_BYTES / pieceBytes)) * pieceBytes));
await runner.close();

const quantile = (of: readonly number[], share: number): number =>
  of.toSorted((a, b) => a - b)[Math.floor(of.length * share)]!;
const rate = (units: number, i: number, share: number): number => units / quantile(times[i]!, share) / 1e6;
const right = (title: string) => ({ title, align: 'right' as const });
const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
console.log(
  renderTable(
    [{ title: 'Kernel' }, right('10th percentile'), right('Median'), right('Of the plain read'), right('GOP/s')],
    candidates.map(({ name, bytes: size, operations }, i) => [
      name,
      `${rate(size, i, 0.1).toFixed(1)} GB/s`,
      `${rate(size, i, 0.5).toFixed(1)} GB/s`,
      percent(rate(size, i, 0.1) / rate(pieceBytes, 0, 0.1)),
      operations ? rate(operations, i, 0.1).toFixed(1) : '',
    ]),
  ),
);
