/** Random schedules, as data: who asks for what and when, who goes away, and what breaks. */
import fc from 'fast-check';
import type { Prompt } from '../../src/prompts/prompt.ts';
import type { Constraint } from '../../src/sampling/constraint.ts';
import type { GenerateOptions } from '../../src/schedule/generation-options.ts';
import type { Phase } from './stage.ts';

export type PlannedPrompt =
  /** `length` ids of a family that all begin alike; the last three differ by `tail`. */
  | { readonly family: number; readonly length: number; readonly tail: number }
  /** A conversation of so many turns, of which the oldest may go. */
  | { readonly turns: number };

export function promptOf(planned: PlannedPrompt): Prompt {
  if ('turns' in planned) {
    const messages = Array.from({ length: 2 * planned.turns - 1 }, (_, i) => ({
      role: i % 2 === 0 ? ('user' as const) : ('assistant' as const),
      content: `word ${i}`,
    }));
    return { messages };
  }
  const { family, length, tail } = planned;
  const differs = (i: number): number => (i >= length - 3 ? tail * (1 + i) : 0);
  return { tokenIds: Array.from({ length }, (_, i) => 3 + ((i * 7 + family * 5 + differs(i)) % 50)) };
}

export interface PlannedOptions {
  /** Index into `samplings`. */
  readonly sampling: number;
  readonly stop: number;
  readonly constraint: number;
  readonly maxTokens: number;
  readonly ignoreEos: boolean;
  readonly seed: number;
}

export interface PlannedRequest {
  /** Step at which it comes. */
  readonly at: number;
  readonly prompt: PlannedPrompt;
  readonly options: PlannedOptions;
  readonly speculate: number;
  readonly priority: number;
  readonly key: number;
  readonly limit: 'none' | 'timeout' | 'deadline';
  /** engine: events to a listener; loop, text, result: as one reads them; batch: `samples` answers; talk: two turns. */
  readonly via: 'engine' | 'loop' | 'text' | 'result' | 'batch' | 'talk';
  readonly samples: number;
  /** Steps after which it is cancelled, and where in that step. */
  readonly cancel?: { readonly after: number; readonly phase: Phase; readonly twice: boolean } | undefined;
  /** Events after which its reader goes. */
  readonly leave?: number | undefined;
  /** The event at which its listener throws. */
  readonly throws?: number | undefined;
}

export interface PlannedFault {
  readonly at: number;
  readonly kind: 'nan' | 'infinity' | 'forward' | 'copy' | 'draw' | 'memory';
  readonly row: number;
  /** Steps that it lasts. */
  readonly span: number;
}

/** Somebody else's sequence, which holds pages for a while; or a forward over a whole prompt. */
export interface PlannedRaw {
  readonly at: number;
  readonly kind: 'step' | 'forward';
  readonly length: number;
  readonly span: number;
}

export interface Schedule {
  readonly model: number;
  /** Pages of the cache beyond those of one context. */
  readonly spare: number;
  readonly maxRows: number;
  readonly maxWanted: number;
  readonly maxQueue: number;
  readonly stepBudgetMs: number;
  readonly requests: readonly PlannedRequest[];
  readonly faults: readonly PlannedFault[];
  readonly raws: readonly PlannedRaw[];
}

export const samplings: readonly GenerateOptions[] = [
  { temperature: 0 },
  { temperature: 0.8 },
  { temperature: 1, topK: 5, repetitionPenalty: 1.3 },
  { temperature: 0.7, topP: 0.9, presencePenalty: 0.5, frequencyPenalty: 0.2, logprobs: 2 },
  // Texts that repeat themselves: guesses are right, or some of them.
  { temperature: 0, logitBias: { 17: 100, 40: 99 } },
  { temperature: 4, logitBias: { 17: 100, 40: 100, 41: 99 } },
  { temperature: 0.5, minP: 0.05, logitsProcessor: (logits, history) => void (logits[history.length % 50] = -1) },
];

export const stops: readonly GenerateOptions[] = [
  {},
  { stop: ['e', 'st'] },
  { stop: 'in the' },
  { stopTokenIds: [20, 21, 22, 23] },
];

/** A constraint that counts what it accepted. */
function counting(
  allowed: (mask: Uint32Array, count: number) => void,
  accept?: (count: number) => void,
): () => Constraint {
  return () => {
    let count = 0;
    return {
      allowed: (mask) => allowed(mask, count),
      accept() {
        count++;
        accept?.(count);
      },
    };
  };
}

export const constraints: readonly GenerateOptions[] = [
  {},
  { constraint: counting((mask) => mask.fill(0x55555555)) },
  { constraint: counting((mask, count) => void (count >= 3 && mask.fill(0))) },
  {
    constraint: counting((_, count) => {
      if (count === 2) throw new Error('the constraint gave up');
    }),
  },
  {
    constraint: counting(
      () => {},
      (count) => {
        if (count === 2) throw new Error('the constraint took none of it');
      },
    ),
  },
];

const lengths = [1, 2, 9, 29, 31, 32, 62, 63, 66, 90, 119, 127, 129, 190, 192, 193, 250, 257];
const usualLengths = [5, 33, 64, 65, 120, 128];

/** Combinations of options; few, so that one reference serves many requests. */
const presets: readonly PlannedOptions[] = Array.from({ length: 30 }, (_, i) => ({
  sampling: i % samplings.length,
  stop: i % 4 === 3 ? (i >> 2) % stops.length : 0,
  constraint: i % 5 === 4 ? 1 + (((i / 5) % (constraints.length - 1)) | 0) : 0,
  maxTokens: i % 5 === 4 ? 12 : [12, 5, 30, 40, 1, 2, 30, 0][(i * 5) % 8]!,
  ignoreEos: i % 3 === 0,
  seed: i % 2,
}));

const rarely = <T>(arbitrary: fc.Arbitrary<T>, freq = 5): fc.Arbitrary<T | undefined> =>
  fc.option(arbitrary, { nil: undefined, freq });

const prompt: fc.Arbitrary<PlannedPrompt> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ family: fc.constant(0), length: fc.constantFrom(...usualLengths), tail: fc.nat(1) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ family: fc.nat(1), length: fc.constantFrom(...lengths), tail: fc.nat(2) }),
  },
  { weight: 1, arbitrary: fc.record({ turns: fc.integer({ min: 1, max: 12 }) }) },
);

const request: fc.Arbitrary<PlannedRequest> = fc.record({
  at: fc.nat(40),
  prompt,
  options: fc.constantFrom(...presets),
  speculate: fc.constantFrom(0, 4, 8),
  priority: fc.constantFrom(0, 0, 0, 1, -1),
  key: fc.nat(2),
  limit: fc.constantFrom('none', 'none', 'none', 'none', 'none', 'none', 'timeout', 'deadline'),
  via: fc.constantFrom('engine', 'engine', 'engine', 'loop', 'text', 'result', 'batch', 'talk'),
  samples: fc.integer({ min: 1, max: 3 }),
  cancel: rarely(
    fc.record({
      after: fc.nat(20),
      phase: fc.constantFrom<Phase>('step', 'forward', 'copy', 'draw'),
      twice: fc.boolean(),
    }),
    3,
  ),
  leave: rarely(fc.nat(10), 4),
  throws: rarely(fc.nat(5), 12),
});

const fault: fc.Arbitrary<PlannedFault> = fc.record({
  at: fc.nat(50),
  kind: fc.constantFrom('nan', 'infinity', 'forward', 'copy', 'draw', 'memory'),
  row: fc.nat(5),
  span: fc.integer({ min: 1, max: 30 }),
});

const raw: fc.Arbitrary<PlannedRaw> = fc.record({
  at: fc.nat(40),
  kind: fc.constantFrom('step', 'forward'),
  length: fc.constantFrom(1, 30, 64, 65, 100),
  span: fc.integer({ min: 1, max: 10 }),
});

export const schedules = (models: number): fc.Arbitrary<Schedule> =>
  fc.record({
    model: fc.nat(models - 1),
    spare: fc.constantFrom(0, 1, 2, 3, 6, 16),
    maxRows: fc.constantFrom(128, 16, 40, 64),
    maxWanted: fc.constantFrom(64, 1, 2, 3, 5),
    maxQueue: fc.constantFrom(100, 0, 1, 4),
    stepBudgetMs: fc.constantFrom(1000, 0.001, 5, 20),
    requests: fc.array(request, { minLength: 1, maxLength: 12 }),
    faults: fc.oneof(
      { weight: 2, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(fault, { maxLength: 3 }) },
    ),
    raws: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(raw, { maxLength: 2 }) },
    ),
  });

const plain = (at: number, family: number, length: number, cancel?: PlannedRequest['cancel']): PlannedRequest => ({
  ...{ at, prompt: { family, length, tail: 0 }, options: presets[0]!, speculate: 0, priority: 0, key: 0 },
  ...{ limit: 'none', via: 'engine', samples: 1, cancel },
});

/** Schedules that once gave other bits: a block that had shrunk took the page of a shorter one with the same beginning. */
export const kept: readonly Schedule[] = [
  {
    ...{ model: 1, spare: 1, maxRows: 128, maxWanted: 64, maxQueue: 100, stepBudgetMs: 1000 },
    requests: [
      plain(0, 1, 90),
      plain(16, 0, 64),
      plain(12, 0, 5, { after: 0, phase: 'copy', twice: false }),
      plain(0, 0, 190),
    ],
    faults: [],
    raws: [],
  },
];
