/** Reads the chunks of two forwards over the same tokens side by side. */
import type { ForwardRows } from '../engine/rows.ts';

type Chunks = AsyncGenerator<ForwardRows, void, undefined>;

export interface PairedRows {
  readonly start: number;
  readonly count: number;
  /** Rows of a tensor of each side, [count, its width]; undefined where a side has none. */
  a(name: string): Float32Array | undefined;
  b(name: string): Float32Array | undefined;
}

/** Rows that both sides have, in turns: A's chunk, then B's. Chunks may have different sizes. */
export async function* pairedRows(a: Chunks, b: Chunks): AsyncGenerator<PairedRows, void, undefined> {
  const sides = [new Side(a), new Side(b)] as const;
  try {
    while (await sides[0].ready()) {
      await sides[1].ready();
      const count = Math.min(sides[0].left, sides[1].left);
      const start = sides[0].position;
      const [takenA, takenB] = [sides[0].take(count), sides[1].take(count)];
      yield { start, count, a: takenA, b: takenB };
    }
  } finally {
    await Promise.all([a.return(), b.return()]);
  }
}

class Side {
  readonly #chunks: Chunks;
  #chunk: ForwardRows | undefined;
  #taken = 0;

  constructor(chunks: Chunks) {
    this.#chunks = chunks;
  }

  get left(): number {
    return this.#chunk ? this.#chunk.count - this.#taken : 0;
  }

  get position(): number {
    return this.#chunk!.start + this.#taken;
  }

  /** Reads the next chunk if none is left. @returns whether there are rows */
  async ready(): Promise<boolean> {
    if (this.left > 0) return true;
    const { value } = await this.#chunks.next();
    this.#chunk = value ?? undefined;
    this.#taken = 0;
    return this.left > 0;
  }

  take(count: number): (name: string) => Float32Array | undefined {
    const { tensors } = this.#chunk!;
    const from = this.#taken;
    this.#taken += count;
    return (name) => {
      const found = tensors.get(name);
      return found?.values.subarray(from * found.shape[1], (from + count) * found.shape[1]);
    };
  }
}
