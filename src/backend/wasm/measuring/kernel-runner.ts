/** Runs single step kernels on all threads over a memory of its own, for measurements. */
import { RECORD_BYTES } from '../../../kernels/record.ts';
import { flags } from '../../../kernels/walker.ts';
import type { KernelSet } from '../lowering/kernel-set.ts';
import { Allocator, Memory, memoryLimits, SCRATCH_BYTES, WASM_PAGE } from '../memory/memory.ts';
import type { WasmHost } from '../threads/host.ts';
import { Pool } from '../threads/pool.ts';

const TAPE = 4096;

export interface RunnerOptions {
  readonly threads: number;
  readonly wide: boolean;
  /** Bytes available to `allocator`. */
  readonly bytes: number;
}

export class KernelRunner {
  readonly memory: Memory;
  readonly allocator: Allocator;
  readonly #pool: Pool;

  private constructor(memory: Memory, allocator: Allocator, pool: Pool) {
    this.memory = memory;
    this.allocator = allocator;
    this.#pool = pool;
  }

  /** Starts threads over a new memory, or over the memory of another runner that is idle meanwhile. */
  static async open(
    host: WasmHost,
    kernels: KernelSet,
    options: RunnerOptions,
    other?: KernelRunner,
  ): Promise<KernelRunner> {
    const { threads, wide, bytes } = options;
    const shared = host.threads.possible;
    const dataAt = TAPE + RECORD_BYTES + threads * SCRATCH_BYTES;
    const memory = other?.memory ?? new Memory(dataAt + bytes + WASM_PAGE, shared);
    const compiled = kernels.compile(host, wide, memoryLimits(shared));
    const scratchOf = (thread: number): number => TAPE + RECORD_BYTES + thread * SCRATCH_BYTES;
    const pool = await Pool.start(
      host,
      { ...compiled, memories: [memory.wasm], threads, cores: host.cores },
      scratchOf,
      1,
    );
    return new KernelRunner(memory, other?.allocator ?? new Allocator(dataAt), pool);
  }

  /** Milliseconds of one run on all threads, including their wake-up. */
  async run(kernel: number, words: Int32Array): Promise<number> {
    this.memory.i32(TAPE, RECORD_BYTES / 4).set([kernel, flags.barrier, ...words]);
    const start = performance.now();
    await this.#pool.run(0, TAPE, 1);
    return performance.now() - start;
  }

  async close(): Promise<void> {
    await this.#pool.stop();
  }
}
