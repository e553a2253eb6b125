/** Checks that two models, such as a model and its draft model, have the same tokens. */
import { OptionError } from '../errors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';

/** A model and its tokens. */
export interface Tokens {
  readonly name: string;
  readonly vocab: number;
  readonly tokenizer: Pick<Tokenizer, 'vocabSize' | 'token' | 'specialIds'> | undefined;
}

/**
 * Ids that both models have must be the same token. Ids that only one of them has must not be produced by encoding
 * text: they may be control tokens, or unused rows of the vocabulary.
 * @param option the option by which the second model was given
 * @throws OptionError naming the first difference
 */
export function checkSameTokens(model: Tokens, draft: Tokens, option = 'draft'): void {
  const refuse = (what: string, found: unknown): never => {
    throw new OptionError(option, `a model with the tokens of ${model.name}, ${what}`, found);
  };
  if (!model.tokenizer || !draft.tokenizer) {
    const named = (tokenizer: Tokens['tokenizer']): string => (tokenizer ? 'a tokenizer' : 'no tokenizer');
    if (model.tokenizer || draft.tokenizer) refuse(`which has ${named(model.tokenizer)}`, named(draft.tokenizer));
    if (model.vocab !== draft.vocab) refuse(`of which there are ${model.vocab}`, draft.vocab);
    return;
  }
  const special = new Set([...model.tokenizer.specialIds, ...draft.tokenizer.specialIds]);
  const [own, other] = [textOf(model), textOf(draft)];
  for (let id = 0; id < Math.max(model.vocab, draft.vocab); id++) {
    const [text, found] = [own(id), other(id)];
    if (text === found) continue;
    const inBoth = id < Math.min(model.vocab, draft.vocab);
    if (!inBoth && special.has(id)) continue;
    const expected = text === undefined ? 'is none' : `is ${JSON.stringify(text.slice(0, 100))}`;
    refuse(`whose token ${id} ${expected}`, found);
  }
}

const textOf =
  ({ vocab, tokenizer }: Tokens) =>
  (id: number): string | undefined =>
    id < vocab ? tokenizer!.token(id) : undefined;
