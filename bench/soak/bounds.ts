/** What a soak measured, and the bounds that it must keep. */

export interface Sample {
  /** Seconds since the load began. */
  readonly at: number;
  readonly rss: number;
  /** JavaScript heap after a garbage collection. */
  readonly heap: number;
  /** Bytes that the model says it holds. */
  readonly model: number;
}

export interface Bound {
  readonly name: string;
  readonly value: number;
  readonly most: number;
  readonly unit: string;
}

/** Growth by least squares: per minute, and the standard error of it. */
export function slopeOf(
  samples: readonly Sample[],
  value: (sample: Sample) => number,
): { slope: number; error: number } {
  const n = samples.length;
  if (n < 3) return { slope: 0, error: 0 };
  const mean = (of: (sample: Sample) => number): number => samples.reduce((sum, sample) => sum + of(sample), 0) / n;
  const minutes = ({ at }: Sample): number => at / 60;
  const [x, y] = [mean(minutes), mean(value)];
  const spread = samples.reduce((sum, sample) => sum + (minutes(sample) - x) ** 2, 0);
  const slope = samples.reduce((sum, sample) => sum + (minutes(sample) - x) * (value(sample) - y), 0) / spread;
  const rest = samples.reduce((sum, sample) => sum + (value(sample) - y - slope * (minutes(sample) - x)) ** 2, 0);
  return { slope, error: Math.sqrt(rest / (n - 2) / spread) };
}

const MB = 1e6;

/** Bounds of memory behind the warm-up. A slope counts as far as it is certain (two standard errors). */
export function memoryBounds(samples: readonly Sample[]): Bound[] {
  const certain = (value: (sample: Sample) => number): number => {
    const { slope, error } = slopeOf(samples, value);
    return Math.max(0, slope - 2 * error) / MB;
  };
  const first = samples[0];
  const last = samples.at(-1);
  const grown = (value: (sample: Sample) => number): number => (first && last ? value(last) - value(first) : 0) / MB;
  return [
    { name: 'growth of resident memory', value: certain(({ rss }) => rss), most: 0.2, unit: 'MB/min' },
    { name: 'resident memory, last to first', value: last && first ? last.rss / first.rss : 1, most: 1.5, unit: 'x' },
    { name: 'growth of the heap after collection', value: certain(({ heap }) => heap), most: 0.2, unit: 'MB/min' },
    { name: 'heap after collection, last minus first', value: grown(({ heap }) => heap), most: 5, unit: 'MB' },
    { name: "growth of the model's memory", value: grown(({ model }) => model), most: 0, unit: 'MB' },
  ];
}
