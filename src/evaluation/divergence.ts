/** How far the predictions of a model are from those of another, token by token. */
import type { Model } from '../engine/model.ts';
import { checkSameTokens } from '../engine/same-tokens.ts';
import { OptionError } from '../errors.ts';
import { exp } from '../numbers.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { pairedRows } from './paired.ts';
import type { EvaluationOptions } from './perplexity.ts';
import { divergeRows, type RowDivergence } from './rows.ts';
import { type Extent, Mean, tokensOf, windowsOf } from './windows.ts';

export interface DivergenceOptions extends EvaluationOptions {
  /** Number of tokens in `worst`. Default 10. */
  readonly worst?: number | undefined;
}

/** A model's view of a place in the text. */
export interface Choice {
  /** Its first choice, and how likely it found that and the token that followed. */
  readonly id: number;
  readonly text: string | undefined;
  readonly probability: number;
  readonly probabilityOfNext: number;
}

export interface WorstToken {
  /** Position in the text, in tokens. */
  readonly position: number;
  readonly kl: number;
  /** The token that followed, and the end of the text before it. */
  readonly id: number;
  readonly text: string | undefined;
  readonly context: string | undefined;
  readonly a: Choice;
  readonly b: Choice;
}

export interface Divergence extends Extent {
  /** Kullback-Leibler divergence KL(A || B) of each scored token's distributions, in nats. */
  readonly kl: {
    readonly mean: number;
    /** Of the mean, if tokens are taken as independent. */
    readonly standardError: number;
    readonly p50: number;
    readonly p99: number;
    readonly max: number;
  };
  /** Share of tokens with the same first choice, and its standard error. */
  readonly agreement: number;
  readonly agreementError: number;
  readonly perplexityA: number;
  readonly perplexityB: number;
  /** Mean of B's loss minus A's, token by token: ln(perplexityB / perplexityA), and its standard error. */
  readonly lossDifference: number;
  readonly lossDifferenceError: number;
  /** The tokens with the largest divergence, the largest first. */
  readonly worst: readonly WorstToken[];
}

/** Tokens of the context that is shown with a worst token. */
const CONTEXT_TOKENS = 16;

/**
 * Runs both models over a text in turns, so that logits of a few rows are in memory. Tokens that only one model has (unused rows
 * of a padded vocabulary) are left out of both distributions.
 * @throws OptionError for models with other tokens; as `perplexity`
 */
export async function divergence(
  a: Model,
  b: Model,
  text: string | readonly number[],
  options: DivergenceOptions = {},
): Promise<Divergence> {
  const { onProgress, signal, worst: shown = 10 } = options;
  if (!(Number.isInteger(shown) && shown >= 0)) throw new OptionError('worst', 'an integer of at least 0', shown);
  checkSameTokens(tokens(a), tokens(b), 'B');
  const ids = tokensOf(a, text, options);
  const contextLength = options.contextLength ?? Math.min(a.contextLength, b.contextLength);
  const { windows, extent } = windowsOf(b.contextLength < a.contextLength ? b : a, ids, { ...options, contextLength });
  const vocab = Math.min(a.description.config.vocab, b.description.config.vocab);
  const [means, same, lossA, lossB, difference] = [new Mean(), new Mean(), new Mean(), new Mean(), new Mean()];
  const all = new Float64Array(extent.scored);
  const worst: Found[] = [];
  for (const { ids: own, from, shift } of windows) {
    const forward = (model: Model) =>
      model.forward(own.slice(0, -1), { from: from - 1, taps: [], ...(signal && { signal }) });
    for await (const { start, count, ...rows } of pairedRows(forward(a), forward(b))) {
      const [logitsA, logitsB] = [rows.a('logits')!, rows.b('logits')!];
      for (let i = 0; i < count; i++) {
        const row = divergeRows(rowOf(logitsA, i, count, vocab), rowOf(logitsB, i, count, vocab), own[start + i + 1]!);
        all[means.count] = row.kl;
        means.add(row.kl);
        same.add(row.bestA === row.bestB ? 1 : 0);
        lossA.add(-row.logNextA);
        lossB.add(-row.logNextB);
        difference.add(row.logNextA - row.logNextB);
        keepWorst(worst, { position: start + i + 1 + shift, row }, shown);
      }
      onProgress?.(means.count, extent.scored);
    }
  }
  const sorted = all.sort();
  const at = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1]!;
  return {
    ...extent,
    kl: { mean: means.mean, standardError: means.standardError, p50: at(0.5), p99: at(0.99), max: at(1) },
    agreement: same.mean,
    agreementError: same.standardError,
    perplexityA: exp(lossA.mean),
    perplexityB: exp(lossB.mean),
    lossDifference: difference.mean,
    lossDifferenceError: difference.standardError,
    worst: worst.map((found) => describe(found, ids, a.tokenizer)),
  };
}

const tokens = ({ name, description, tokenizer }: Model): Parameters<typeof checkSameTokens>[0] => ({
  name,
  vocab: description.config.vocab,
  tokenizer,
});

const rowOf = (values: Float32Array, row: number, rows: number, vocab: number): Float32Array => {
  const width = values.length / rows;
  return values.subarray(row * width, row * width + vocab);
};

interface Found {
  readonly position: number;
  readonly row: RowDivergence;
}

/** Keeps the `most` largest, sorted. */
function keepWorst(worst: Found[], found: Found, most: number): void {
  if (worst.length >= most && !(found.row.kl > (worst.at(-1)?.row.kl ?? Number.POSITIVE_INFINITY))) return;
  const place = worst.findIndex(({ row }) => found.row.kl > row.kl);
  worst.splice(place < 0 ? worst.length : place, 0, found);
  worst.length = Math.min(worst.length, most);
}

function describe({ position, row }: Found, ids: readonly number[], tokenizer: Tokenizer | undefined): WorstToken {
  const textOf = (some: readonly number[]): string | undefined => tokenizer?.decode(some);
  const choice = (id: number, logBest: number, logNext: number): Choice => ({
    id,
    text: textOf([id]),
    probability: exp(logBest),
    probabilityOfNext: exp(logNext),
  });
  return {
    position,
    kl: row.kl,
    id: ids[position]!,
    text: textOf([ids[position]!]),
    context: textOf(ids.slice(Math.max(0, position - CONTEXT_TOKENS), position)),
    a: choice(row.bestA, row.logBestA, row.logNextA),
    b: choice(row.bestB, row.logBestB, row.logNextB),
  };
}
