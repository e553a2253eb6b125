/** Runs segments of a plan over all calibration texts, and keeps the rows that later segments read. */
import type { TensorData } from '../backend/backend.ts';
import { PAGE } from '../backend/backend.ts';
import { createWasmBackend } from '../backend/wasm/create.ts';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import type { BufferId, Plan, PlannedWeight, WeightId } from '../plan/step.ts';
import { inputTensor, liveAt, type Segment, segmentPlan } from './segments.ts';

export interface SegmentWeights {
  /** The weight with the storage that the segment runs it in. */
  weight(id: WeightId): PlannedWeight;
  /** Tensor bytes by the names of the weights' sources. */
  tensor(name: string): TensorData;
}

export interface SegmentRunnerOptions {
  /** One that remembers modules, see rememberingHost. */
  readonly host: WasmHost;
  readonly threads?: number;
  readonly plan: Plan;
  /** Token ids of each text. */
  readonly texts: readonly Int32Array[];
  readonly onRows?: (rows: number) => void;
  readonly signal?: AbortSignal;
}

export class SegmentRunner {
  readonly #options: SegmentRunnerOptions;
  /** Rows of the buffers that are live before step `#at`. [rows, width] */
  #live = new Map<BufferId, Float32Array<ArrayBuffer>>();
  readonly rows: number;

  constructor(options: SegmentRunnerOptions) {
    this.#options = options;
    this.rows = options.texts.reduce((sum, text) => sum + text.length, 0);
  }

  /** Rows of a live buffer. */
  live(id: BufferId): Float32Array {
    return this.#live.get(id)!;
  }

  /** Runs a segment and makes what is live after it the live buffers. */
  async advance(
    segment: Pick<Segment, 'from' | 'to'>,
    weights: SegmentWeights,
    also: readonly BufferId[] = [],
  ): Promise<void> {
    const { plan } = this.#options;
    const outputs = [...new Set([...liveAt(plan, segment.to), ...also])];
    this.#live = await this.run(segment, outputs, weights);
  }

  /** Rows of `outputs` after a segment. */
  async run(
    segment: Pick<Segment, 'from' | 'to'>,
    outputs: readonly BufferId[],
    { weight, tensor }: SegmentWeights,
  ): Promise<Map<BufferId, Float32Array<ArrayBuffer>>> {
    const { plan: whole, host, texts, threads, onRows, signal } = this.#options;
    if (segment.from === segment.to) return new Map(outputs.map((id) => [id, this.#live.get(id)!]));
    const { rows } = this;
    const { plan, taps } = segmentPlan(whole, segment, outputs, { rows, weight });
    const inputs = new Map([...this.#live].map(([id, values]) => [inputTensor(id), values]));
    const longest = texts.reduce((most, text) => Math.max(most, text.length), 0);
    const backend = await createWasmBackend({
      plan,
      host,
      threads,
      maxRows: longest,
      maxWanted: longest,
      cache: { contextLength: longest },
      tensor: (name) => {
        const values = inputs.get(name);
        return values ? rowsTensor(values, rows) : tensor(name);
      },
      signal,
    });
    try {
      const pages = Math.ceil(longest / PAGE);
      await backend.cache.ensure(pages);
      const results = new Map(
        outputs.map((id): [BufferId, Float32Array<ArrayBuffer>] => [
          id,
          new Float32Array(rows * whole.buffers[id]!.width),
        ]),
      );
      let first = 0;
      for (const text of texts) {
        signal?.throwIfAborted();
        const positions = Int32Array.from(text, (_, i) => i);
        const { tap } = await backend.forward({
          tokens: text,
          ...(inputs.size > 0 && { types: positions.map((i) => first + i) }),
          positions,
          sequences: new Int32Array(text.length),
          pages: [Int32Array.from({ length: Math.ceil(text.length / PAGE) }, (_, page) => page)],
          wanted: positions,
        });
        for (const [id, name] of taps) results.get(id)!.set(tap(name), first * whole.buffers[id]!.width);
        first += text.length;
        onRows?.(text.length);
      }
      return results;
    } finally {
      await backend.dispose();
    }
  }
}

/** Rows in memory as a tensor. */
function rowsTensor(values: Float32Array<ArrayBuffer>, rows: number): TensorData {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return {
    dtype: 'f32',
    shape: [rows, values.length / rows],
    byteLength: bytes.length,
    readInto: async (start, target) => target.set(bytes.subarray(start, start + target.length)),
  };
}

/** Compiles each module once: the segments of a model need the same kernels again and again. */
export function rememberingHost(host: WasmHost): WasmHost {
  const known = new Map<string, WebAssembly.Module>();
  return {
    ...host,
    compile(bytes, options) {
      const key = `${options.wide} ${Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')}`;
      const module = known.get(key) ?? host.compile(bytes, options);
      known.set(key, module);
      return module;
    },
  };
}
