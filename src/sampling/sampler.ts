/** From logits to the next token. */
import type { LogitsSummary } from '../backend/backend.ts';
import { LanewiseError } from '../errors.ts';
import { exp, log } from '../numbers.ts';
import { SUMMARY_CHUNK } from '../plan/step.ts';
import { Random } from './random.ts';
import type { SamplingSettings } from './sampling-options.ts';
import { drawFromAll, floorOfLargest, MAX_FLOAT32, Selection } from './selection.ts';

export interface TokenChoice {
  readonly id: number;
  /** Natural logarithm of the probability the model itself gave: before bias, penalties, temperature and cuts. */
  readonly logprob: number;
}

export interface Sample extends TokenChoice {
  /** The most probable tokens, best first (lowest id on a tie), where `logprobs` asked for some. */
  readonly top?: readonly TokenChoice[];
}

/**
 * Chooses the tokens of one sequence. On the logits act, in this order: logit bias, repetition penalty, presence and
 * frequency penalty, temperature, top-k, top-p (of what top-k left), min-p. Then one number of the sequence's own random
 * generator picks; temperature 0 takes the largest logit, lowest id on a tie, and no random number.
 *
 * All arithmetic is defined (numbers.ts, fixed order of sums), so equal logits and settings choose equally everywhere.
 */
export class Sampler {
  private readonly settings: SamplingSettings;
  private readonly random: Random;
  /** Distinct ids of prompt and text: the repetition penalty's. */
  private readonly seen: Set<number>;
  /** How often each id was generated: for presence and frequency penalty. */
  private readonly counts = new Map<number, number>();
  private readonly selection = new Selection();
  private adjusted = new Float32Array(0);

  /** @param history ids of the prompt */
  constructor(settings: SamplingSettings, history: Iterable<number> = []) {
    this.settings = settings;
    this.random = new Random(settings.seed);
    this.seen = new Set(history);
  }

  /**
   * @param logits one per token id [vocab]; not changed. -Infinity masks a token.
   * @param summary what is known of them; without it they are looked at one by one
   * @throws LanewiseError `NumericError` for NaN or +Infinity, `NoCandidate` where every token is masked
   */
  sample(logits: Float32Array, summary?: LogitsSummary): Sample {
    const known = summary !== undefined && Number.isFinite(summary.largest);
    const best = known ? logits.indexOf(summary.largest, summary.chunk * SUMMARY_CHUNK) : largest(logits);
    const id = this.choose(logits, best);
    const logNormalizer = known ? summary.logSumExp : logits[best]! + log(sumOfExponentials(logits, logits[best]!));
    const choice = (of: number): TokenChoice => ({ id: of, logprob: logits[of]! - logNormalizer });
    if (this.settings.logprobs === 0) return choice(id);
    this.selection.load(logits, floorOfLargest(logits, this.settings.logprobs));
    this.selection.keepLargest(this.settings.logprobs);
    const top = [...this.selection.ids()].sort((a, b) => logits[b]! - logits[a]! || a - b);
    return { ...choice(id), top: top.map(choice) };
  }

  /** Tells the penalties that `id` is now part of the text. */
  accept(id: number): void {
    this.seen.add(id);
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
  }

  private choose(logits: Float32Array, best: number): number {
    const { temperature, topK, topP, minP } = this.settings;
    const adjusted = this.adjust(logits);
    const first = adjusted === logits ? best : largest(adjusted);
    if (temperature === 0) return first;
    const uniform = this.random.uniform();
    if (topK === 0 && topP === 1 && minP === 0) return drawFromAll(adjusted, adjusted[first]!, temperature, uniform);
    const selection = this.selection;
    // What the cuts would throw away is not looked at twice; min-p's floor is a little low, its cut exact.
    const floorOfK = topK > 0 ? floorOfLargest(adjusted, topK) : Number.NEGATIVE_INFINITY;
    const floorOfP = minP > 0 && topP === 1 ? temperature * (log(minP) - 1e-6) : Number.NEGATIVE_INFINITY;
    const lowest = Math.max(floorOfP, temperature * NEGLIGIBLE);
    selection.load(adjusted, Math.max(floorOfK, adjusted[first]! + lowest));
    if (topK > 0) selection.keepLargest(topK);
    selection.weigh(adjusted[first]!, temperature);
    if (topP < 1) selection.keepMass(topP);
    if (minP > 0) selection.keepWeightsFrom(minP);
    return selection.draw(uniform);
  }

  /** Logits after bias and penalties: the same array where there are none. */
  private adjust(logits: Float32Array): Float32Array {
    const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty } = this.settings;
    const repetition = repetitionPenalty !== 1 && this.seen.size > 0;
    const counted = (presencePenalty !== 0 || frequencyPenalty !== 0) && this.counts.size > 0;
    if (logitBias.size === 0 && !repetition && !counted) return logits;
    if (this.adjusted.length !== logits.length) this.adjusted = new Float32Array(logits.length);
    const adjusted = this.adjusted;
    adjusted.set(logits);
    for (const [id, bias] of logitBias) adjusted[id]! += bias;
    if (repetition) {
      for (const id of this.seen) {
        const x = adjusted[id]!;
        adjusted[id] = x > 0 ? Math.min(x / repetitionPenalty, MAX_FLOAT32) : x * repetitionPenalty;
      }
    }
    if (counted) for (const [id, count] of this.counts) adjusted[id]! -= presencePenalty + count * frequencyPenalty;
    return adjusted;
  }
}

/** ln 2^-53: a token so much less probable than the first one vanishes when doubles are added up. */
const NEGLIGIBLE = -36.736800569677101;

/** Index of the largest value, the lowest on a tie. */
function largest(logits: Float32Array): number {
  let best = -1;
  let value = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const x = logits[id]!;
    if (x > value) {
      best = id;
      value = x;
    }
    if (!(x < Infinity))
      throw new LanewiseError('NumericError', `logit of token ${id} must be a finite number or -Infinity, got ${x}`);
  }
  if (best < 0) throw new LanewiseError('NoCandidate', 'every token is masked: one logit must be above -Infinity');
  return best;
}

function sumOfExponentials(logits: Float32Array, max: number): number {
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += exp(logits[id]! - max);
  return sum;
}
