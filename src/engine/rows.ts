/** Evaluates given tokens chunk by chunk, so that neither logits nor taps of a whole text are in memory. */
import { OptionError } from '../errors.ts';
import { checkLength } from '../prompts/limits.ts';
import type { Engine, NamedRows, RowResults, RowScores, RowWishes, SequenceHandle } from './engine.ts';

export interface RowOptions {
  /** Position of the first token whose rows are wanted; those before are its context. Default 0. */
  readonly from?: number;
  readonly signal?: AbortSignal;
}

export interface ForwardOptions extends RowOptions {
  /** Whether logits are wanted. Default true. */
  readonly logits?: boolean;
  /** Names of the taps that are wanted. Default: all that the model was loaded with. */
  readonly taps?: readonly string[];
}

/** Results of some neighbouring rows. */
export interface ForwardRows {
  /** Position of the first row, and the number of rows. */
  readonly start: number;
  readonly count: number;
  /** `logits` [count, vocab] and taps [count, width]. */
  readonly tensors: NamedRows;
}

/** How likely the tokens from position `start` on were, each after those before it. */
export interface TokenScores extends RowScores {
  readonly start: number;
}

/** @throws OptionError, ContextLengthError; NumericError for logits that are not numbers */
export async function* forwardRows(
  engine: Engine,
  ids: readonly number[],
  { from = 0, logits = true, taps, signal }: ForwardOptions,
): AsyncGenerator<ForwardRows, void, undefined> {
  const { plan } = engine.info.description;
  const names = taps ?? plan.steps.flatMap((step) => (step.op === 'tap' ? [step.name] : []));
  const wishes = { logits, taps: names };
  for await (const { start, count, tensors } of evaluated(engine, ids, { from, signal }, () => wishes))
    yield { start, count, tensors };
}

/** @throws OptionError for less than two tokens; as `forwardRows` */
export async function* scoreTokens(
  engine: Engine,
  ids: readonly number[],
  { from = 1, signal }: RowOptions,
): AsyncGenerator<TokenScores, void, undefined> {
  const rows = ids.slice(0, -1);
  const next = (start: number, count: number): RowWishes => ({ next: ids.slice(start + 1, start + 1 + count) });
  for await (const { start, scores } of evaluated(engine, rows, { from: from - 1, signal }, next))
    yield { start: start + 1, ...scores! };
}

/** @throws OptionError, ContextLengthError */
export function checkForward(
  engine: Engine,
  tokenIds: readonly number[],
  { from = 0 }: RowOptions,
  least = 1,
): number[] {
  const ids = engine.prompts.encode({ tokenIds });
  if (ids.length < least)
    throw new OptionError('tokenIds', least === 1 ? 'at least one token' : `at least ${least} tokens`, ids);
  if (!(Number.isInteger(from) && from >= least - 1 && from < ids.length))
    throw new OptionError('from', `an integer from ${least - 1} to ${ids.length - 1}`, from);
  const { contextLength, longestContext } = engine.prompts.files;
  checkLength(ids.length, contextLength, longestContext);
  return ids;
}

async function* evaluated(
  engine: Engine,
  ids: readonly number[],
  { from, signal }: Required<Pick<RowOptions, 'from'>> & RowOptions,
  wishes: (start: number, count: number) => RowWishes,
): AsyncGenerator<RowResults & { readonly start: number; readonly count: number }, void, undefined> {
  const { maxRows, maxWanted } = engine.info;
  const sequence: SequenceHandle = engine.sequence(ids.length);
  try {
    for (let start = 0; start < ids.length; ) {
      signal?.throwIfAborted();
      const most = start < from ? Math.min(from - start, maxRows) : Math.min(maxRows, maxWanted);
      const tokens = ids.slice(start, start + most);
      const count = tokens.length;
      if (start < from) await engine.evaluate(sequence, tokens, {});
      else yield { start, count, ...(await engine.evaluate(sequence, tokens, wishes(start, count))) };
      start += count;
    }
  } finally {
    sequence.dispose();
  }
}
