/** What classes of transformers do with a SentencePiece model beyond what the model says itself: other ids, other frames. */
import { classifierFrame, type Frame, noFrame, withEnds } from './frame.ts';
import { tokenTypes } from './gguf-vocabulary.ts';
import type { Sidecars } from './sidecars.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface Piece {
  text: string;
  score: number;
  /** As in GGUF, which took the numbers over. */
  type: number;
}

export interface SentencePieceFamily {
  /** The pieces by the ids that the model uses. Default: as the file has them. */
  readonly arrange?: (pieces: readonly Piece[], sidecars: Sidecars) => Piece[];
  /** Default: what add_bos_token and add_eos_token say. */
  readonly frame?: (vocabulary: Vocabulary, sidecars: Sidecars) => Frame;
  /** Whether texts become lowercase first. */
  readonly lowercases?: (sidecars: Sidecars) => boolean;
}

const control = (text: string): Piece => ({ text, score: 0, type: tokenTypes.control });
const unknownPiece: Piece = { text: '<unk>', score: 0, type: tokenTypes.unknown };

/** Two control tokens around a text, by their roles or usual spellings. Tokens that are not there are left out. */
function around(first: string, last: string, roberta: boolean): NonNullable<SentencePieceFamily['frame']> {
  return (vocabulary, { roles }) => {
    const firstId = vocabulary.id(roles.get('classifier')?.content ?? first);
    const lastId = vocabulary.id(roles.get('separator')?.content ?? last);
    return firstId === undefined || lastId === undefined ? noFrame : classifierFrame(firstId, lastId, roberta);
  };
}

/** fairseq's order of control tokens; the pieces follow without those of the file, `<mask>` is the last. */
const xlmRoberta: SentencePieceFamily = {
  arrange: (pieces) => [...['<s>', '<pad>', '</s>'].map(control), unknownPiece, ...pieces.slice(3), control('<mask>')],
  frame: around('<s>', '</s>', true),
};

const camembert: SentencePieceFamily = {
  arrange: (pieces) => [
    ...['<s>NOTUSED', '<pad>', '</s>NOTUSED'].map(control),
    unknownPiece,
    control('<unk>NOTUSED'),
    ...pieces.slice(1),
    control('<mask>'),
  ],
  frame: around('<s>', '</s>', true),
};

/** Sentinels of masked spans follow the pieces, the last one first. */
const t5: SentencePieceFamily = {
  arrange(pieces, { config }) {
    const extra = config.integer('extra_ids', 0, 2 ** 16, 100);
    const known = new Set(pieces.map(({ text }) => text));
    const names = Array.from({ length: extra }, (_, i) => `<extra_id_${extra - 1 - i}>`);
    return [...pieces, ...names.filter((name) => !known.has(name)).map(control)];
  },
  frame: (vocabulary, { roles }) =>
    withEnds(noFrame, { eos: vocabulary.id(roles.get('eos')?.content ?? '</s>'), addEos: true }),
};

const families: Readonly<Record<string, SentencePieceFamily>> = {
  XLMRoberta: xlmRoberta,
  Camembert: camembert,
  T5: t5,
  DebertaV2: {
    frame: around('[CLS]', '[SEP]', false),
    lowercases: ({ config }) => config.flag('do_lower_case', false),
  },
  Albert: { frame: around('[CLS]', '[SEP]', false), lowercases: ({ config }) => config.flag('do_lower_case', true) },
};

export const sentencePieceFamily = ({ family }: Sidecars): SentencePieceFamily =>
  Object.hasOwn(families, family) ? families[family]! : {};
