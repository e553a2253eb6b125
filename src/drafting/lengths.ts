/** Chooses the draft length of each request, so that a step gives the most tokens per time. */

export interface LengthChoice {
  /** Rows of the forward without drafts; each gives a token. */
  readonly rows: number;
  /** Largest number of draft tokens of all requests together. */
  readonly room: number;
  /** For each request the probability that a draft token after accepted ones is accepted, and the largest draft length. */
  readonly requests: readonly { readonly chance: number; readonly most: number }[];
  /** Milliseconds of a forward of this many rows, and of one more draft token for this many requests at once. */
  readonly stepMs: (rows: number) => number;
  readonly guessMs: (requests: number) => number;
}

/** Smallest estimated speedup for drafts to be used, as estimates are noisy. */
const LEAST_GAIN = 1.05;

/**
 * Sorts all possible draft tokens by the probability that they are accepted, and takes the prefix of that list with the
 * most expected tokens per millisecond. A later token of a request is never more probable than an earlier one, so every
 * prefix is a length for each request.
 */
export function chooseLengths({ rows, room, requests, stepMs, guessMs }: LengthChoice): number[] {
  const guesses: { index: number; depth: number; chance: number }[] = [];
  for (const [index, { chance, most }] of requests.entries()) {
    for (let depth = 1, right = chance; depth <= Math.min(most, room); depth++, right *= chance)
      guesses.push({ index, depth, chance: right });
  }
  guesses.sort((a, b) => b.chance - a.chance || a.depth - b.depth || a.index - b.index);
  /** Number of requests with a draft token at each depth. */
  const atDepth: number[] = [];
  let tokens = rows;
  let draftMs = 0;
  let best = { count: 0, rate: (LEAST_GAIN * rows) / stepMs(rows) };
  for (const [i, { depth, chance }] of guesses.slice(0, room).entries()) {
    const before = atDepth[depth] ?? 0;
    atDepth[depth] = before + 1;
    draftMs += guessMs(before + 1) - (before === 0 ? 0 : guessMs(before));
    tokens += chance;
    const rate = tokens / (stepMs(rows + i + 1) + draftMs);
    if (rate > best.rate) best = { count: i + 1, rate };
  }
  const lengths = requests.map(() => 0);
  for (const { index } of guesses.slice(0, best.count)) lengths[index]!++;
  return lengths;
}
