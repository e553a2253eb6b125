/** Chooses the next token from logits. */
import type { Draw, LogitsSummary } from '../backend/backend.ts';
import { drawFrom } from '../backend/draw.ts';
import { Selection } from '../backend/selection.ts';
import { LanewiseError } from '../errors.ts';
import { exp, log } from '../numbers.ts';
import { SUMMARY_CHUNK } from '../plan/step.ts';
import { type Constraint, callback, type LogitsProcessor } from './constraint.ts';
import { type Choice, inspectChoice, type TokenInspection } from './inspection.ts';
import { Random } from './random.ts';
import type { SamplingSettings } from './sampling-options.ts';

export interface TokenChoice {
  readonly id: number;
  /**
   * Natural logarithm of the model's probability, before constraint, bias, penalties, temperature and top-k, top-p,
   * min-p.
   */
  readonly logprob: number;
}

export interface Sample extends TokenChoice {
  /** The most probable tokens, best first (lowest id on a tie), if `logprobs` is set. */
  readonly top?: readonly TokenChoice[];
  /** How the token came to be chosen, if `inspect` is set. */
  readonly inspection?: TokenInspection;
}

const MAX_FLOAT32 = 3.4028234663852886e38;

/**
 * Chooses the tokens of one sequence. The logits are changed by, in this order: constraint, logits processor, logit bias,
 * repetition penalty, presence and frequency penalty, temperature, top-k, top-p (of the rest), min-p. A number of the
 * sequence's random generator then picks a token. Temperature 0 takes the largest logit (lowest id on a tie) and no random
 * number.
 *
 * The arithmetic is defined to the bit (src/backend/draw.ts): equal logits and settings give equal tokens everywhere.
 */
export class Sampler {
  private readonly settings: SamplingSettings;
  private random: Random;
  private readonly constraint: Constraint | undefined;
  private readonly processor: LogitsProcessor | undefined;
  /** Ids of prompt and text, kept only for a logits processor. */
  private readonly history: number[];
  /** Distinct ids of prompt and text, for the repetition penalty. */
  private readonly seen: Set<number>;
  /** How often each id was generated, for presence and frequency penalty. */
  private counts = new Map<number, number>();
  private readonly selection = new Selection();
  /** What the stages did to the logits of the next token; only with `inspect`. */
  private stages: Pick<Choice, 'mask' | 'processed' | 'changed'> | undefined;

  /** @param history ids of the prompt @throws LanewiseError CallbackFailed */
  constructor(settings: SamplingSettings, history: Iterable<number> = []) {
    const { constraint, logitsProcessor, seed } = settings;
    this.settings = settings;
    this.random = new Random(seed);
    this.constraint = typeof constraint === 'function' ? callback('constraint', constraint) : constraint;
    this.processor = logitsProcessor;
    const ids = [...history];
    this.history = logitsProcessor ? ids : [];
    this.seen = new Set(settings.repetitionPenalty === 1 ? [] : ids);
  }

  /**
   * A sampler for guesses at the tokens that this one will choose: the same random numbers and penalties, no constraint and no
   * logits processor (they keep a state of the caller's), no log-probabilities.
   */
  fork(): Sampler {
    const { settings } = this;
    const own = { constraint: undefined, logitsProcessor: undefined, logprobs: 0, inspect: false };
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = settings;
    const fork = new Sampler({ ...settings, ...own }, repetitionPenalty === 1 ? [] : this.seen);
    fork.random = this.random.clone();
    if (presencePenalty !== 0 || frequencyPenalty !== 0) fork.counts = new Map(this.counts);
    return fork;
  }

  /**
   * Chooses a token from logits in ordinary memory.
   *
   * @param logits [vocab], not changed; -Infinity masks a token
   * @param summary their summary; computed if omitted
   * @throws LanewiseError `NumericError` for NaN or +Infinity, `NoCandidate` if every token is masked, `CallbackFailed`
   */
  sample(logits: Float32Array, summary?: LogitsSummary): Sample {
    const known = summary && Number.isFinite(summary.largest) ? summary : summarize(logits);
    const next = this.prepare(logits, known);
    return this.report(typeof next === 'number' ? next : drawFrom(logits, next, this.selection), logits, known);
  }

  /**
   * The next token if it needs no draw (-1 if no token is possible), else the draw to evaluate.
   * @throws LanewiseError CallbackFailed, NumericError for invalid logits from a processor
   */
  prepare(logits: Float32Array, summary: LogitsSummary): number | Omit<Draw, 'row'> {
    const { temperature, topK, topP, minP } = this.settings;
    if (summary.largest === Number.NEGATIVE_INFINITY) return -1;
    const mask = this.allowed(logits.length);
    const uniform = temperature === 0 ? 0 : this.random.uniform();
    const draw = { mask, temperature, topK, topP, minP, uniform };
    if (this.processor) {
      const processed = this.process(this.processor, logits, mask);
      const changed = this.changes(processed);
      this.stages = this.settings.inspect ? { mask, processed, changed } : undefined;
      return drawFrom(processed, { ...draw, changed }, this.selection);
    }
    const changed = this.changes(logits);
    this.stages = this.settings.inspect ? { mask, processed: undefined, changed } : undefined;
    if (temperature === 0 && !mask && !changed) return logits.indexOf(summary.largest, summary.chunk * SUMMARY_CHUNK);
    return { ...draw, changed };
  }

  /** The sample for the chosen token. @param id -1: no token was possible @throws LanewiseError NoCandidate */
  report(id: number, logits: Float32Array, summary: LogitsSummary): Sample {
    if (id < 0) {
      const expected = this.constraint ? 'a token that the constraint allows' : 'one logit above -Infinity';
      throw new LanewiseError('NoCandidate', `no token can come next: expected ${expected}, found none`);
    }
    const choice = (of: number): TokenChoice => ({ id: of, logprob: logits[of]! - summary.logSumExp });
    const { settings, stages } = this;
    const { logprobs } = settings;
    const { logSumExp } = summary;
    return {
      ...choice(id),
      ...(logprobs > 0 && { top: largestLogits(logits, summary, logprobs, this.selection).map(choice) }),
      ...(stages && { inspection: inspectChoice({ ...stages, logits, logSumExp, settings }, id) }),
    };
  }

  /** Adds `id` to the text, for penalties and constraint. @throws LanewiseError CallbackFailed */
  accept(id: number): void {
    const { constraint } = this;
    this.seen.add(id);
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
    if (this.processor) this.history.push(id);
    if (constraint) callback('constraint.accept', () => constraint.accept(id));
  }

  private allowed(vocab: number): Uint32Array | undefined {
    const { constraint } = this;
    if (!constraint) return undefined;
    const mask = new Uint32Array(Math.ceil(vocab / 32)).fill(0xffffffff);
    callback('constraint.allowed', () => constraint.allowed(mask));
    return mask;
  }

  private process(processor: LogitsProcessor, logits: Float32Array, mask: Uint32Array | undefined): Float32Array {
    const processed = logits.slice();
    if (mask) {
      for (let id = 0; id < processed.length; id++)
        if (((mask[id >>> 5]! >>> (id & 31)) & 1) === 0) processed[id] = Number.NEGATIVE_INFINITY;
    }
    callback('logitsProcessor', () => processor(processed, this.history));
    for (let id = 0; id < processed.length; id++) {
      const x = processed[id]!;
      if (x < Number.POSITIVE_INFINITY) continue;
      const expected = 'a finite number or -Infinity for every token';
      throw new LanewiseError('NumericError', `logitsProcessor must write ${expected}, wrote ${x} for token ${id}`);
    }
    return processed;
  }

  /** Logits changed by bias and penalties; undefined if there are none. */
  private changes(logits: Float32Array): Draw['changed'] {
    const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty } = this.settings;
    const repeats = repetitionPenalty !== 1;
    const counts = presencePenalty !== 0 || frequencyPenalty !== 0;
    const touched = repeats ? this.seen : counts ? this.counts.keys() : [];
    const list = [...logitBias.keys()];
    for (const id of touched) if (!logitBias.has(id)) list.push(id);
    if (list.length === 0) return undefined;
    const ids = Int32Array.from(list);
    const values = new Float32Array(ids.length);
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      values[i] = logits[id]! + (logitBias.get(id) ?? 0);
      const x = values[i]!;
      if (repeats && (i >= logitBias.size || this.seen.has(id)))
        values[i] = x > 0 ? Math.min(x / repetitionPenalty, MAX_FLOAT32) : x * repetitionPenalty;
      const count = counts ? this.counts.get(id) : undefined;
      if (count !== undefined) values[i]! -= presencePenalty + count * frequencyPenalty;
    }
    return { ids, logits: values };
  }
}

/** The error for logits that contain NaN or +Infinity. */
export function notNumbers(logits: Float32Array): LanewiseError {
  const id = logits.findIndex((x) => !(x < Number.POSITIVE_INFINITY));
  const expected = `logit of token ${id} must be a finite number or -Infinity`;
  return new LanewiseError('NumericError', `${expected}, got ${logits[id]}`);
}

/** The summary of logits without a summary by a forward; it has no chunks. @throws LanewiseError NumericError */
function summarize(logits: Float32Array): LogitsSummary {
  let largest = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const x = logits[id]!;
    if (!(x < Number.POSITIVE_INFINITY)) throw notNumbers(logits);
    if (x > largest) largest = x;
  }
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += exp(logits[id]! - largest);
  const chunk = Math.floor(logits.indexOf(largest) / SUMMARY_CHUNK);
  return { largest, chunk, logSumExp: largest + log(sum), chunks: new Float32Array(0) };
}

/** Ids of the `count` largest logits, largest first, lowest id on a tie. */
function largestLogits(
  logits: Float32Array,
  { chunks }: LogitsSummary,
  count: number,
  selection: Selection,
): readonly number[] {
  const maxima = chunks.filter((_, i) => i % 2 === 0);
  // At least `count` logits are no smaller than the count-th largest maximum of a chunk.
  const floor = maxima.length < count ? Number.NEGATIVE_INFINITY : maxima.slice().sort()[maxima.length - count]!;
  selection.clear(logits.length);
  for (let start = 0, chunk = 0; start < logits.length; start += SUMMARY_CHUNK, chunk++) {
    if (maxima.length > 0 && !(maxima[chunk]! >= floor)) continue;
    const end = Math.min(logits.length, start + SUMMARY_CHUNK);
    for (let id = start; id < end; id++)
      if (logits[id]! >= floor && logits[id]! > Number.NEGATIVE_INFINITY) selection.add(id, logits[id]!, 1);
  }
  selection.keepLargest(count);
  return [...selection.ids()].sort((a, b) => logits[b]! - logits[a]! || a - b);
}
