/** How many tokens to guess for each request, so that a step gives most tokens in its time. */

export interface LengthChoice {
  /** Rows of the forward without drafts, each of which gives a token. */
  readonly rows: number;
  /** Most guessed tokens of all requests together. */
  readonly room: number;
  /** For each request the chance that a guess behind right ones is right, and the most tokens to guess. */
  readonly requests: readonly { readonly chance: number; readonly most: number }[];
  /** Milliseconds of a forward of so many rows, and of one more guess for so many requests at once. */
  readonly stepMs: (rows: number) => number;
  readonly guessMs: (requests: number) => number;
}

/** Drafts must promise so much more speed: estimates are noisy. */
const LEAST_GAIN = 1.03;

/**
 * Guesses sorted by the chance that they are right; of all beginnings of that list the one with most tokens in a millisecond.
 * A later guess for a request never has a better chance than an earlier one, so each beginning is a length for each request.
 */
export function chooseLengths({ rows, room, requests, stepMs, guessMs }: LengthChoice): number[] {
  const guesses: { index: number; depth: number; chance: number }[] = [];
  for (const [index, { chance, most }] of requests.entries()) {
    for (let depth = 1, right = chance; depth <= Math.min(most, room); depth++, right *= chance)
      guesses.push({ index, depth, chance: right });
  }
  guesses.sort((a, b) => b.chance - a.chance || a.depth - b.depth || a.index - b.index);
  /** Requests with a guess of each depth. */
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
