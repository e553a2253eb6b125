/** Perplexity of a model on a text. */
import type { Model } from '../engine/model.ts';
import { exp } from '../numbers.ts';
import { type Extent, Mean, tokensOf, type WindowOptions, windowsOf } from './windows.ts';

export interface EvaluationOptions extends WindowOptions {
  /** Called after each chunk with the tokens scored so far, and all that will be. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Perplexity extends Extent {
  /** e to the mean loss. */
  readonly perplexity: number;
  /** Of the perplexity, if the losses of tokens are taken as independent. */
  readonly standardError: number;
  /** Mean of -ln p over the scored tokens, and its standard error. */
  readonly loss: number;
  readonly lossError: number;
  /** Share of tokens that were the model's first choice. */
  readonly accuracy: number;
}

/**
 * Perplexity by windows that overlap (see `windowsOf`): the mean of -ln p of every token but the first. Numbers are summed in
 * f64, and the sums of e^logit are those of the forward (f32 within 1,024 logits, f64 between).
 * @param text a text, encoded as the model expects it, or token ids
 * @throws OptionError; LanewiseError NoTokenizer, NumericError; the signal's reason
 */
export async function perplexity(
  model: Model,
  text: string | readonly number[],
  options: EvaluationOptions = {},
): Promise<Perplexity> {
  const { onProgress, signal } = options;
  const { windows, extent } = windowsOf(model, tokensOf(model, text, options), options);
  const losses = new Mean();
  let right = 0;
  for (const { ids, from } of windows) {
    for await (const { start, logProbs, best } of model.score(ids, { from, ...(signal && { signal }) })) {
      for (const [i, logProb] of logProbs.entries()) {
        losses.add(-logProb);
        if (best[i] === ids[start + i]) right++;
      }
      onProgress?.(losses.count, extent.scored);
    }
  }
  const { mean: loss, standardError: lossError } = losses;
  const value = exp(loss);
  return {
    ...extent,
    perplexity: value,
    standardError: value * lossError,
    loss,
    lossError,
    accuracy: right / losses.count,
  };
}
