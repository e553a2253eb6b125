/** Ids and frames that classes of transformers add to a SentencePiece model, by family. */
import { classifierFrame, type Frame, noFrame, withEnds } from './frame.ts';
import { tokenTypes } from './gguf-vocabulary.ts';
import type { Sidecars } from './sidecars.ts';
import type { Vocabulary } from './vocabulary.ts';

export interface Piece {
  text: string;
  score: number;
  /** Type number, the same as in GGUF. */
  type: number;
}

export interface SentencePieceFamily {
  /** Returns the pieces in the order of the ids that the model uses. Default: the order of the file. */
  readonly arrange?: (pieces: readonly Piece[], sidecars: Sidecars) => Piece[];
  /** Default: according to add_bos_token and add_eos_token. */
  readonly frame?: (vocabulary: Vocabulary, sidecars: Sidecars) => Frame;
  /** Whether texts are lower-cased first. */
  readonly lowercases?: (sidecars: Sidecars) => boolean;
}

const control = (text: string): Piece => ({ text, score: 0, type: tokenTypes.control });
const unknownPiece: Piece = { text: '<unk>', score: 0, type: tokenTypes.unknown };

/** A frame of two control tokens, found by role or usual spelling. Missing tokens are left out. */
function around(first: string, last: string, roberta: boolean): NonNullable<SentencePieceFamily['frame']> {
  return (vocabulary, { roles }) => {
    const firstId = vocabulary.id(roles.get('classifier')?.content ?? first);
    const lastId = vocabulary.id(roles.get('separator')?.content ?? last);
    return firstId === undefined || lastId === undefined ? noFrame : classifierFrame(firstId, lastId, roberta);
  };
}

/** The order of fairseq: its own control tokens, the file's pieces without the first three, `<mask>`. */
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

/** Sentinel tokens follow the pieces, in descending order. */
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
