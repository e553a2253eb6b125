/**
 * The loss of a model with other storages against the model itself, on the same tokens. Of a decoder the mean
 * Kullback-Leibler divergence of the next token, in nats; of an encoder the mean cosine distance of the texts' vectors.
 */
import type { RunRows } from './runs.ts';

/** Collects what the exact model computes, then compares. */
export interface Comparison {
  /** Rows of the exact model, in order. */
  learn(rows: RunRows): void;
  /** Starts the comparison of another model, whose rows go to `add`. */
  start(): { add(rows: RunRows): void; loss(): number };
}

/** Compares logits. */
export class LogitsComparison implements Comparison {
  readonly #vocab: number;
  /** Probabilities of each row, and the sum of p log p. */
  readonly #rows: { readonly probabilities: Float32Array; readonly entropy: number }[] = [];

  constructor(vocab: number) {
    this.#vocab = vocab;
  }

  learn({ results, count }: RunRows): void {
    for (let row = 0; row < count; row++) {
      const logits = results.output(row);
      const { logSumExp } = results.summary(row);
      const probabilities = new Float32Array(this.#vocab);
      let entropy = 0;
      for (let i = 0; i < this.#vocab; i++) {
        const log = logits[i]! - logSumExp;
        const p = Math.fround(Math.exp(log));
        probabilities[i] = p;
        if (p > 0) entropy += p * log;
      }
      this.#rows.push({ probabilities, entropy });
    }
  }

  start(): ReturnType<Comparison['start']> {
    let [at, sum] = [0, 0];
    return {
      add: ({ results, count }) => {
        for (let row = 0; row < count; row++) {
          const { probabilities, entropy } = this.#rows[at++]!;
          sum += entropy + crossEntropy(probabilities, results.output(row), results.summary(row).logSumExp);
        }
      },
      loss: () => Math.max(0, sum / at),
    };
  }
}

/** - sum of p log q. NaN if a logit is no number. */
function crossEntropy(probabilities: Float32Array, logits: Float32Array, logSumExp: number): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    const p = probabilities[i]!;
    if (p > 0) sum += p * (logSumExp - logits[i]!);
  }
  return sum;
}

/** Compares the means of a text's hidden states. */
export class VectorComparison implements Comparison {
  readonly #vectors: Float64Array[] = [];

  learn(rows: RunRows): void {
    this.#vectors.push(meanRow(rows));
  }

  start(): ReturnType<Comparison['start']> {
    const distances: number[] = [];
    return {
      add: (rows) => void distances.push(1 - cosine(this.#vectors[distances.length]!, meanRow(rows))),
      loss: () => Math.max(0, distances.reduce((sum, distance) => sum + distance, 0) / distances.length),
    };
  }
}

function meanRow({ results, count }: RunRows): Float64Array {
  const mean = new Float64Array(results.output(0).length);
  for (let row = 0; row < count; row++)
    for (const [i, value] of results.output(row).entries()) mean[i]! += value / count;
  return mean;
}

function cosine(a: Float64Array, b: Float64Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (const [i, value] of a.entries()) {
    dot += value * b[i]!;
    aa += value * value;
    bb += b[i]! * b[i]!;
  }
  return dot / Math.sqrt(aa * bb);
}
