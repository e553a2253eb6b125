/** The threads of a backend: a failure reaches the caller, the next walk has new threads. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import { KernelSet } from '../../src/backend/wasm/lowering/kernel-set.ts';
import { KernelRunner } from '../../src/backend/wasm/measuring/kernel-runner.ts';
import { Memory } from '../../src/backend/wasm/memory/memory.ts';
import type { Thread } from '../../src/backend/wasm/threads/host.ts';
import { nodeHost, threadOf } from '../../src/backend/wasm/threads/host-node.ts';
import { Pool } from '../../src/backend/wasm/threads/pool.ts';
import type { ThreadSetup } from '../../src/backend/wasm/threads/thread-setup.ts';
import { BackendError } from '../../src/errors.ts';
import { PATIENCE } from '../../src/kernels/barrier.ts';
import { claim, clearClaims } from '../../src/kernels/claims.ts';
import { copyKernel, copyRecord } from '../../src/kernels/elementwise.ts';
import { recordLayout } from '../../src/kernels/record.ts';
import { flags } from '../../src/kernels/walker.ts';
import {
  add,
  constant,
  doWhile,
  type Func,
  lessUnsigned,
  loadI32,
  type Module,
  multiply,
  storeI32,
  when,
} from '../../src/wasm/assembler.ts';

const ROWS = 4;
const WIDTH = 64;

/** A runner whose kernel copies ROWS rows, each thread its share. */
async function copying(threads: number, workerFor: (setup: ThreadSetup) => Worker | undefined = () => undefined) {
  const kernels = new KernelSet();
  const kernel = kernels.index('rows', 'copy', copyKernel);
  const spawned: Thread[] = [];
  const host = nodeHost();
  const spawn: typeof host.spawn = (setup) => {
    const worker = spawned.length < threads - 1 ? workerFor(setup) : undefined;
    const thread = worker ? threadOf(worker, setup) : host.spawn(setup);
    spawned.push(thread);
    return thread;
  };
  const runner = await KernelRunner.open({ ...host, spawn }, kernels, { threads, wide: false, bytes: 1 << 16 });
  const count = runner.allocator.take('count', 64);
  const [x, out] = [runner.allocator.take('x', ROWS * WIDTH * 4), runner.allocator.take('out', ROWS * WIDTH * 4)];
  runner.memory.i32(count, 1)[0] = ROWS;
  runner.memory.f32(x, ROWS * WIDTH).forEach((_, i, values) => {
    values[i] = i;
  });
  return {
    runner,
    spawned,
    run: (from = x) => runner.run(kernel, copyRecord.words({ x: from, out, rows: count, width: WIDTH })),
    /** The copy, wiped. */
    take(): number[] {
      const values = runner.memory.f32(out, ROWS * WIDTH);
      const taken = [...values];
      values.fill(-1);
      return taken;
    },
  };
}

const expected = Array.from({ length: ROWS * WIDTH }, (_, i) => i);

for (const threads of [1, 3]) {
  test(`a trap on ${threads} threads is an error of that walk, and the next one works`, async () => {
    const { runner, run, take } = await copying(threads);
    try {
      for (let round = 0; round < 2; round++) {
        await assert.rejects(run(2 ** 31), (error) => {
          assert.ok(error instanceof BackendError);
          assert.match(error.message, /^a kernel failed in thread \d: .*out of bounds/);
          return true;
        });
        take();
        await run();
        assert.deepEqual(take(), expected);
      }
    } finally {
      await runner.close();
    }
  });
}

const claimingRecord = recordLayout('plus', 'out', 'items');

/** Exports `claiming`: counts in out[item], for each item that a thread claims; traps where `plus` is no address. */
function claimingKernel(module: Module): Func {
  const f = module.func('claiming', ['i32', 'i32', 'i32']);
  const [record, , threads] = [f.param('i32', 0), f.param('i32', 1), f.param('i32', 2)];
  const [claimed, items, at] = [f.local('i32'), f.local('i32'), f.local('i32')];
  return f.emit(
    items.set(claimingRecord.load(record, 'items')),
    claimed.set(claim(record)),
    when(lessUnsigned(claimed.get, items.get), [
      doWhile(
        lessUnsigned(claimed.get, items.get),
        at.set(add(claimingRecord.load(record, 'out'), multiply(claimed.get, constant(4)))),
        storeI32(at.get, add(loadI32(at.get), loadI32(claimingRecord.load(record, 'plus')))),
        claimed.set(claim(record)),
      ),
    ]),
    clearClaims(record, claimed, items, threads),
  );
}

for (const threads of [1, 2, 3]) {
  test(`work that ${threads} threads claim is done once each time, also after a trap`, async () => {
    const [kernels, items] = [new KernelSet(), 1000];
    const kernel = kernels.index('claiming', 'claiming', claimingKernel);
    const runner = await KernelRunner.open(nodeHost(), kernels, { threads, wide: false, bytes: 1 << 16 });
    const [one, out] = [runner.allocator.take('one', 64), runner.allocator.take('out', items * 4)];
    runner.memory.i32(one, 1)[0] = 1;
    const counts = runner.memory.i32(out, items);
    const run = (plus = one): Promise<number> => runner.run(kernel, claimingRecord.words({ plus, out, items }));
    try {
      for (let round = 1; round <= 20; round++) {
        if (round % 5 === 0) {
          await assert.rejects(run(2 ** 31), BackendError);
        }
        counts.fill(0);
        await run();
        assert.ok(counts.every((count) => count === 1));
      }
    } finally {
      await runner.close();
    }
  });
}

test('a thread that ended between walks is replaced', async () => {
  const { runner, spawned, run, take } = await copying(2);
  try {
    await spawned[0]!.terminate();
    await run();
    assert.deepEqual(take(), expected);
    assert.equal(spawned.length, 2);
  } finally {
    await runner.close();
  }
});

test('a thread that ends in the middle of its work ends the walk, and is replaced', async () => {
  const { runner, spawned, run, take } = await copying(3, (setup) =>
    setup.thread === 2 ? new Worker(new URL('./dying-thread.ts', import.meta.url)) : undefined,
  );
  try {
    const before = performance.now();
    await assert.rejects(run(), /^BackendError: thread 2 ended in the middle of its work$/);
    assert.ok(
      performance.now() - before < (PATIENCE * 1000) / 2,
      'the caller waited for as long as for a silent thread',
    );
    take();
    await run();
    assert.deepEqual(take(), expected);
    assert.equal(spawned.length, 4);
  } finally {
    await runner.close();
  }
});

test('no thread runs any more when a failed walk is told', async () => {
  const { runner, spawned, run } = await copying(3);
  const ended = spawned.map((thread) => thread.ended.then(() => true));
  try {
    await assert.rejects(run(2 ** 31), BackendError);
    const [stillRunning] = [new Promise((resolve) => setImmediate(() => resolve(false)))];
    for (const thread of ended) assert.equal(await Promise.race([thread, stillRunning]), true);
  } finally {
    await runner.close();
  }
});

test('threads that were started ahead serve as others do', async () => {
  nodeHost().prestart!(2);
  for (let n = 0; n < 2; n++) {
    const { runner, run, take } = await copying(3);
    try {
      await run();
      assert.deepEqual(take(), expected);
    } finally {
      await runner.close();
    }
  }
});

test('walks for few and for many threads in any order', async () => {
  const memory = new Memory(1 << 20, true);
  const kernels = new KernelSet();
  const kernel = kernels.index('rows', 'copy', copyKernel);
  const host = nodeHost();
  const compiled = kernels.compile(host, false, { maximum: 65536, shared: true });
  const setup = { ...compiled, memories: [memory.wasm], threads: 4, cores: host.cores };
  const [TAPE, COUNT, X, OUT] = [4096, 8192, 16384, 32768];
  const pool = await Pool.start(host, setup, (thread) => (1 << 19) + thread * 65536, 1);
  try {
    memory.i32(COUNT, 1)[0] = ROWS;
    memory
      .i32(TAPE, 16)
      .set([kernel, flags.barrier, ...copyRecord.words({ x: X, out: OUT, rows: COUNT, width: WIDTH })]);
    for (let n = 0; n < 3000; n++) {
      memory.f32(X, ROWS * WIDTH).fill(n);
      await pool.run(0, TAPE, 1, [1, 4, 2, 4, 3, 1, 1, 3][n % 8]);
      assert.ok(
        memory.f32(OUT, ROWS * WIDTH).every((value) => value === n),
        `walk ${n}`,
      );
    }
  } finally {
    await pool.stop();
  }
});

for (const failing of [1, 2]) {
  test(`threads from the ${failing}. on that do not start are left out, with one warning`, async () => {
    const memory = new Memory(1 << 20, true);
    const kernels = new KernelSet();
    const kernel = kernels.index('rows', 'copy', copyKernel);
    const node = nodeHost();
    const refused = new BackendError('ThreadFailed', 'too many open files');
    const none = Promise.resolve();
    const spawn: typeof node.spawn = (setup) =>
      setup.thread === failing
        ? { ready: Promise.reject(refused), ended: none, terminate: () => none }
        : node.spawn(setup);
    const compiled = kernels.compile(node, false, { maximum: 65536, shared: true });
    const setup = { ...compiled, memories: [memory.wasm], threads: 4, cores: node.cores };
    const [TAPE, COUNT, X, OUT] = [4096, 8192, 16384, 32768];
    const warnings: string[] = [];
    const pool = await Pool.start(
      { ...node, spawn },
      setup,
      (thread) => (1 << 19) + thread * 65536,
      1,
      undefined,
      (text) => warnings.push(text),
    );
    try {
      assert.equal(pool.threads, failing);
      const count = failing === 1 ? 'one thread' : '2 threads';
      assert.deepEqual(warnings, [`${count} instead of 4: too many open files`]);
      memory.i32(COUNT, 1)[0] = ROWS;
      memory
        .i32(TAPE, 16)
        .set([kernel, flags.barrier, ...copyRecord.words({ x: X, out: OUT, rows: COUNT, width: WIDTH })]);
      memory.f32(X, ROWS * WIDTH).fill(7);
      await pool.run(0, TAPE, 1, 4);
      assert.ok(memory.f32(OUT, ROWS * WIDTH).every((value) => value === 7));
    } finally {
      await pool.stop();
    }
  });
}
