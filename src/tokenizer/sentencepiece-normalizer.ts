/** The normalization of SentencePiece. */
import type { CharsMap } from './charsmap.ts';
import { markSpaces, type Normalizer } from './normalizers.ts';
import { SPACE_MARK } from './spaces.ts';

export interface SentencePieceRules {
  readonly map?: CharsMap;
  /** Whether a space is put in front of the text. */
  readonly prefix: boolean;
  /** Whether runs of spaces become one, and spaces at both ends are removed. */
  readonly mergeSpaces: boolean;
}

export function sentencePieceNormalizer({ map, prefix, mergeSpaces }: SentencePieceRules): Normalizer {
  return (text) => {
    let normal = map ? map.replaceLongest(text) : text;
    if (mergeSpaces) normal = normal.replace(/^ +| +$/g, '').replace(/ {2,}/g, ' ');
    const marked = markSpaces(normal);
    return prefix && normal !== '' ? SPACE_MARK + marked : marked;
  };
}
