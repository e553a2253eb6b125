/** The threads of a backend: a failure reaches the caller, the next walk has new threads. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { nodeHost } from '../../src/backend/wasm/host-node.ts';
import { KernelSet } from '../../src/backend/wasm/kernel-set.ts';
import { Stage } from '../../src/backend/wasm/stage.ts';
import { BackendError } from '../../src/errors.ts';
import { copyKernel, copyRecord } from '../../src/kernels/elementwise.ts';

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
