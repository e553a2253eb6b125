/** Checks of the rows of a forward. */
import { OptionError } from '../errors.ts';
import type { Sequence } from './sequence.ts';

interface Rows {
  readonly sequence: Sequence;
  readonly tokens: readonly number[];
  readonly wanted: boolean | 'all';
}

/** @throws OptionError for rows that a forward cannot take */
export function checkRows(
  parts: readonly Rows[],
  limits: { maxRows: number; maxWanted: number; vocab: number; owns: (sequence: Sequence) => boolean },
): void {
  const { maxRows, maxWanted, vocab, owns } = limits;
  if (!Array.isArray(parts) || parts.length === 0)
    throw new OptionError('parts', 'an array of at least one part', parts);
  const seen = new Set<Sequence>();
  let [rows, wantedRows] = [0, 0];
  for (const { sequence, tokens, wanted } of parts) {
    if (!owns(sequence)) throw new OptionError('sequence', 'a sequence of this model', sequence);
    if (seen.has(sequence)) throw new OptionError('parts', 'made of different sequences', 'one sequence twice');
    seen.add(sequence);
    if (!Array.isArray(tokens) || tokens.length === 0)
      throw new OptionError('tokens', 'an array of at least one token id', tokens);
    for (const id of tokens) {
      if (!(Number.isInteger(id) && id >= 0 && id < vocab))
        throw new OptionError('tokens', `made of integers from 0 to ${vocab - 1}`, id);
    }
    rows += tokens.length;
    wantedRows += wanted === 'all' ? tokens.length : wanted ? 1 : 0;
  }
  if (rows > maxRows) throw new OptionError('parts', `at most ${maxRows} rows`, rows);
  if (wantedRows > maxWanted) throw new OptionError('parts', `at most ${maxWanted} wanted rows`, wantedRows);
}
