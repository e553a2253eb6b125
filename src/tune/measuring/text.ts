/** The text that a model is measured with: a file, or the English below. */
import { tokenizerBeside, withinVocabulary } from '../../engine/tokenizer.ts';
import { OptionError, TokenizerError } from '../../errors.ts';
import type { FileFolder } from '../../formats/bytes.ts';
import type { OpenedModel } from './open-model.ts';

/** Plain prose with names, numbers and dialogue. */
export const builtInText = `The town of Harwick lies where two rivers meet, and for as long as anyone can remember its people have argued about the bridge. In 1874 the old wooden one was swept away by a flood in the night. Nobody was hurt, but the baker lost three sacks of flour that he had left by the toll house, and he told the story for the rest of his life. The stone bridge that replaced it cost eleven thousand pounds, took six years to build, and was, in the opinion of the mayor, too narrow before it was finished.

"We should have listened to the engineer," said Mrs. Dale, when her granddaughter asked about it. "He wanted two more arches. But the council counted the pennies, and then counted them again, and in the end they built what they could pay for."

"Was that wrong?" asked the girl.

"I don't know. A bridge that is too narrow is still better than a drawing of a wide one."

Water boils at a lower temperature on a mountain than at the sea, because the air presses less on its surface. A cook who moves to the hills therefore has to learn some things again: rice takes longer, bread rises faster, and an egg that was always perfect after four minutes is suddenly raw in the middle. The reason is simple, but it took people a long time to find it. In the seventeenth century Robert Boyle pumped the air out of a glass vessel and watched warm water begin to bubble without any fire at all.

Most programs spend their time in a small part of their code. Before changing anything, measure: run the program on an input of the size that matters, note how long each step takes, and look at the largest number first. It is often not where one expects. A list that is searched from the beginning for every word, a file that is opened and closed in a loop, a table that is copied when it could be shared; such things are easy to mend once they are known, and no clever trick elsewhere makes up for them. After the change, measure again. If the time has not become shorter, undo it.

The children walked along the shore until the houses were out of sight. Tom found a crab under a stone, and Anna a green bottle with a piece of paper in it, but the paper was wet and the ink had run. They sat on the sand and guessed what it might have said. Perhaps it was a map. Perhaps it was a letter from a sailor to his mother, or a recipe for soup. When the sun was low, they put the paper back, closed the bottle, and threw it as far into the sea as they could.

On Monday the committee met for the third time. It had before it a report of forty pages, two letters from the ministry, and a petition with nearly nine hundred signatures. The chair reminded everyone that the question was not whether the library should be closed, but whether it could be kept open with half the money. After a long discussion it was agreed, by seven votes to four, to ask the university for help, to open on five days instead of six, and to meet again in the spring.
`;

export interface TuningText {
  /** Token ids of each part, each within the context. */
  readonly texts: readonly (readonly number[])[];
  /** For people: where the tokens come from. */
  readonly source: string;
}

/** Least and most tokens of a text of an encoder. */
const SENTENCE = [4, 128] as const;

/**
 * The tokens of a text, `most` at most: of a decoder as few pieces as the context allows, of an encoder a piece per line or
 * sentence. A model without tokenizer gets tokens by a fixed rule.
 * @throws TokenizerError for a tokenizer that cannot be used; OptionError for a text without tokens
 */
export async function tuningText(
  { files, description, name }: OpenedModel,
  folder: FileFolder,
  given: { readonly text: string; readonly name: string } | undefined,
  most: number,
): Promise<TuningText> {
  const { vocab, contextLength } = description.config;
  const tokenizer = await tokenizerBeside(folder, files);
  if (tokenizer === undefined) {
    if (given) throw new TokenizerError(name, `a tokenizer is needed to read ${given.name}, and the model has none`);
    const ids = Array.from(
      { length: Math.min(most, 4 * contextLength) },
      (_, i) => (7 + i * 37 + ((i * i) % 101)) % vocab,
    );
    return { texts: pieces(ids, contextLength), source: 'token ids by a fixed rule: the model has no tokenizer' };
  }
  const words = withinVocabulary(tokenizer, vocab, name);
  const text = given?.text ?? builtInText;
  const from = given ? given.name : 'the built-in English text';
  if (description.kind === 'encoder') {
    const texts: number[][] = [];
    let left = most;
    for (const sentence of text.split(/(?<=[.!?])\s+|\n+/)) {
      if (sentence.trim() === '' || left <= 0) continue;
      const ids = words.encode(sentence).slice(0, Math.min(SENTENCE[1], contextLength));
      if (ids.length < SENTENCE[0]) continue;
      texts.push(ids);
      left -= ids.length;
    }
    if (texts.length === 0) throw new OptionError('calibrate', 'a text with sentences', from);
    return { texts, source: `${count(texts)} tokens in ${texts.length} sentences of ${from}` };
  }
  const [first] = words.encode('');
  const bos = first !== undefined && first === words.role('bos')?.id ? [first] : [];
  const ids = words.encode(text, { addSpecial: false }).slice(0, most);
  if (ids.length === 0) throw new OptionError('calibrate', 'a text with at least one token', from);
  const texts = pieces(ids, contextLength - bos.length).map((piece) => [...bos, ...piece]);
  return { texts, source: `${ids.length} tokens of ${from}` };
}

const count = (texts: readonly (readonly number[])[]): number => texts.reduce((sum, { length }) => sum + length, 0);

function pieces(ids: readonly number[], length: number): number[][] {
  const out: number[][] = [];
  for (let at = 0; at < ids.length; at += length) out.push(ids.slice(at, at + length));
  return out;
}
