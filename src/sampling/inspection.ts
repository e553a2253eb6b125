/** Explains one choice of a token: the probabilities before and after, and what each stage of sampling removed. */
import {
  allowedBy,
  inverseTemperature,
  LEAST_EXPONENT,
  largestAllowed,
  leastWeight,
  tokenWeight,
} from '../backend/draw.ts';
import { Selection } from '../backend/selection.ts';
import { exp, log } from '../numbers.ts';

/** Stages in their order. Temperature 0 removes all tokens but the largest; others those without weight (below 2^-31). */
export const stages = ['constraint', 'logitsProcessor', 'penalties', 'temperature', 'topK', 'topP', 'minP'] as const;
export type Stage = (typeof stages)[number];

export interface StageReport {
  readonly stage: Stage;
  /** Number of tokens left after it. */
  readonly left: number;
  /** Number of tokens that it removed, and the sum of their probabilities by the model. */
  readonly removed: number;
  readonly removedProbability: number;
  /** Number of tokens whose logits it changed: penalties (with logit bias) and the logits processor. */
  readonly changed: number;
}

export interface Alternative {
  readonly id: number;
  /** Probability by the model, before any stage. */
  readonly before: number;
  /** Probability with which the draw would take it; 0: removed. */
  readonly after: number;
  /** The stage that removed it. */
  readonly removedBy?: Stage;
}

export interface TokenInspection {
  /** Entropy of the model's distribution, and of what the stages left, in bits. */
  readonly entropy: number;
  readonly entropyAfter: number;
  /** Place of the chosen token by the model's logits, from 1. */
  readonly rank: number;
  /** The most probable tokens, best first, and the chosen one at the end if it is not among them. */
  readonly alternatives: readonly Alternative[];
  /** Stages that did something, in their order. */
  readonly stages: readonly StageReport[];
}

/** What a sampler did with the logits of one row. */
export interface Choice {
  /** [vocab] */
  readonly logits: Float32Array;
  readonly logSumExp: number;
  readonly mask: Uint32Array | undefined;
  /** Logits after the logits processor. [vocab] */
  readonly processed: Float32Array | undefined;
  /** Logits after bias and penalties, of some ids. */
  readonly changed: { readonly ids: Int32Array; readonly logits: Float32Array } | undefined;
  readonly settings: {
    readonly temperature: number;
    readonly topK: number;
    readonly topP: number;
    readonly minP: number;
  };
}

const MOST_ALTERNATIVES = 10;

/** @param id the chosen token */
export function inspectChoice(choice: Choice, id: number): TokenInspection {
  const { logits, logSumExp, mask, processed, changed, settings } = choice;
  const vocab = logits.length;
  const probability = (token: number): number => exp(logits[token]! - logSumExp);
  const removedBy = new Uint8Array(vocab); // 1 + index of the stage; 0: left
  let left = 0;
  for (let token = 0; token < vocab; token++) if (logits[token]! > Number.NEGATIVE_INFINITY) left++;
  const reports: StageReport[] = [];
  const remove = (stage: Stage, gone: (token: number) => boolean, changes = 0): void => {
    let [removed, removedProbability] = [0, 0];
    for (let token = 0; token < vocab; token++) {
      if (removedBy[token] !== 0 || logits[token] === Number.NEGATIVE_INFINITY || !gone(token)) continue;
      removedBy[token] = 1 + stages.indexOf(stage);
      removed++;
      removedProbability += probability(token);
    }
    left -= removed;
    if (removed + changes > 0) reports.push({ stage, left, removed, removedProbability, changed: changes });
  };

  if (mask) remove('constraint', (token) => !allowedBy(mask, token));
  const before = processed ?? logits;
  if (processed) {
    let changes = 0;
    for (let token = 0; token < vocab; token++)
      if (removedBy[token] === 0 && processed[token] !== logits[token]) changes++;
    remove('logitsProcessor', (token) => processed[token] === Number.NEGATIVE_INFINITY, changes);
  }
  const now = changed ? before.slice() : before;
  if (changed) {
    changed.ids.forEach((token, i) => {
      now[token] = changed.logits[i]!;
    });
    const changes = changed.ids.filter((token) => removedBy[token] === 0 && now[token] !== before[token]).length;
    remove('penalties', (token) => now[token] === Number.NEGATIVE_INFINITY, changes);
  }

  const { temperature, topK, topP, minP } = settings;
  const best = largestAllowed(now, mask);
  const selection = new Selection();
  const largest = now[best]!;
  const inverse = inverseTemperature(temperature);
  if (temperature === 0) {
    selection.clear(1);
    selection.add(best, largest, 1);
  } else selection.load(now, mask, (logit) => tokenWeight(logit, largest, inverse), largest + LEAST_EXPONENT / inverse);
  const cut = (stage: Stage): void => {
    const kept = new Set(selection.ids());
    remove(stage, (token) => !kept.has(token));
  };
  cut('temperature');
  if (temperature > 0) {
    if (topK > 0) {
      selection.keepLargest(topK);
      cut('topK');
    }
    if (topP < 1) {
      selection.keepMass(topP * selection.totalMass);
      cut('topP');
    }
    if (minP > 0) {
      selection.keepWeightsFrom(leastWeight(minP));
      cut('minP');
    }
  }
  const after = new Map([...selection.ids()].map((token, i) => [token, selection.weightAt(i) / selection.totalMass]));
  const alternatives = largestIds(logits, MOST_ALTERNATIVES);
  if (!alternatives.includes(id)) alternatives.push(id);
  return {
    entropy: entropyOf(logits, logSumExp),
    entropyAfter: bits(after.values()),
    rank: rankOf(logits, id),
    alternatives: alternatives.map((token) => ({
      id: token,
      before: probability(token),
      after: after.get(token) ?? 0,
      ...(removedBy[token] !== 0 && { removedBy: stages[removedBy[token]! - 1]! }),
    })),
    stages: reports,
  };
}

const LN2 = log(2);

function entropyOf(logits: Float32Array, logSumExp: number): number {
  let sum = 0;
  for (const logit of logits) {
    const logprob = logit - logSumExp;
    if (logprob > Number.NEGATIVE_INFINITY) sum -= exp(logprob) * logprob;
  }
  return Math.max(0, sum / LN2);
}

function bits(probabilities: Iterable<number>): number {
  let sum = 0;
  for (const p of probabilities) if (p > 0) sum -= p * log(p);
  return Math.max(0, sum / LN2);
}

/** Place by falling logit, the lowest id first on a tie, from 1. */
function rankOf(logits: Float32Array, id: number): number {
  let rank = 1;
  for (let token = 0; token < logits.length; token++)
    if (logits[token]! > logits[id]! || (logits[token] === logits[id] && token < id)) rank++;
  return rank;
}

/** Ids of the largest logits, largest first, the lowest id first on a tie. */
function largestIds(logits: Float32Array, count: number): number[] {
  const found: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!;
    if (logit === Number.NEGATIVE_INFINITY || (found.length === count && !(logit > logits[found.at(-1)!]!))) continue;
    let place = found.length;
    while (place > 0 && logits[found[place - 1]!]! < logit) place--;
    found.splice(place, 0, id);
    if (found.length > count) found.pop();
  }
  return found;
}
