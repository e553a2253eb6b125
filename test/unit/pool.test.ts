/** The threads of a backend: a failure reaches the caller, the next walk has new threads. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { nodeHost } from '../../src/backend/wasm/host-node.ts';
import { KernelSet } from '../../src/backend/wasm/kernel-set.ts';
import { Memory } from '../../src/backend/wasm/memory-map.ts';
import { Pool } from '../../src/backend/wasm/pool.ts';
import { Stage } from '../../src/backend/wasm/stage.ts';
import { BackendError } from '../../src/errors.ts';
import { copyKernel, copyRecord } from '../../src/kernels/elementwise.ts';
import { flags } from '../../src/kernels/walker.ts';

const ROWS = 4;
const WIDTH = 64;

/** A stage whose kernel copies ROWS rows, each thread its share. */
async function copying(threads: number) {
  const kernels = new KernelSet();
  const kernel = kernels.index('rows', 'copy', copyKernel);
  const spawned: { terminate(): Promise<void> }[] = [];
  const host = nodeHost();
  const spawn: typeof host.spawn = (setup) => {
    const thread = host.spawn(setup);
    spawned.push(thread);
    return thread;
  };
  const stage = await Stage.open({ ...host, spawn }, kernels, { threads, wide: false, bytes: 1 << 16 });
  const count = stage.allocator.take('count', 64);
  const [x, out] = [stage.allocator.take('x', ROWS * WIDTH * 4), stage.allocator.take('out', ROWS * WIDTH * 4)];
  stage.memory.i32(count, 1)[0] = ROWS;
  stage.memory.f32(x, ROWS * WIDTH).forEach((_, i, values) => {
    values[i] = i;
  });
  return {
    stage,
    spawned,
    run: (from = x) => stage.run(kernel, copyRecord.words({ x: from, out, rows: count, width: WIDTH })),
    /** The copy, wiped. */
    take(): number[] {
      const values = stage.memory.f32(out, ROWS * WIDTH);
      const taken = [...values];
      values.fill(-1);
      return taken;
    },
  };
}

const expected = Array.from({ length: ROWS * WIDTH }, (_, i) => i);

for (const threads of [1, 3]) {
  test(`a trap on ${threads} threads is an error of that walk, and the next one works`, async () => {
    const { stage, run, take } = await copying(threads);
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
      await stage.close();
    }
  });
}

test('a thread that ended between walks is replaced', async () => {
  const { stage, spawned, run, take } = await copying(2);
  try {
    await spawned[0]!.terminate();
    await run();
    assert.deepEqual(take(), expected);
    assert.equal(spawned.length, 2);
  } finally {
    await stage.close();
  }
});

test('threads that were started ahead serve as others do', async () => {
  nodeHost().expect!(2);
  for (let n = 0; n < 2; n++) {
    const { stage, run, take } = await copying(3);
    try {
      await run();
      assert.deepEqual(take(), expected);
    } finally {
      await stage.close();
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
  const pool = await Pool.start(
    host,
    setup,
    (thread) => (1 << 19) + thread * 65536,
    () => {},
  );
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
