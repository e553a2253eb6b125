/** Frames: the tokens that a model expects around texts (post-processors of tokenizer.json). */
import { TokenizerError } from '../errors.ts';
import { Settings } from './settings.ts';
import type { EncodedPair } from './tokenizer.ts';
import type { Vocabulary } from './vocabulary.ts';

/** A text (`sequence` 0 the first, 1 the second) or tokens of the frame itself. */
export type FramePart =
  | { readonly sequence: 0 | 1; readonly typeId: number }
  | { readonly ids: readonly number[]; readonly typeId: number };

export interface Frame {
  readonly single: readonly FramePart[];
  readonly pair: readonly FramePart[];
}

const FIRST: FramePart = { sequence: 0, typeId: 0 };
export const noFrame: Frame = { single: [FIRST], pair: [FIRST, { sequence: 1, typeId: 1 }] };

/** Puts the frame's tokens around two texts, or only joins them without `addSpecial`. */
export function framePair(frame: Frame, texts: readonly (readonly number[])[], addSpecial: boolean): EncodedPair {
  const out: EncodedPair = { ids: [], typeIds: [] };
  for (const part of frame.pair) {
    if ('ids' in part && !addSpecial) continue;
    const ids = 'ids' in part ? part.ids : texts[part.sequence]!;
    for (const id of ids) {
      out.ids.push(id);
      out.typeIds.push(part.typeId);
    }
  }
  return out;
}

/** Puts the frame's tokens around one text. */
export function frameOne(frame: Frame, ids: number[], addSpecial: boolean): number[] {
  const around = addSpecial && frame.single.some((part) => 'ids' in part);
  return around ? frame.single.flatMap((part) => ('ids' in part ? part.ids : ids)) : ids;
}

/** The tokens before and after a text, and whether to add them. */
export interface FrameEnds {
  readonly bos?: number;
  readonly eos?: number;
  /** true: add, false: remove, undefined: as the frame has it. */
  readonly addBos?: boolean;
  readonly addEos?: boolean;
}

/** The frame with `bos` before and `eos` after each text added or removed. */
export function withEnds(frame: Frame, { bos, eos, addBos, addEos }: FrameEnds): Frame {
  const isToken = (part: FramePart | undefined, id: number): boolean =>
    part !== undefined && 'ids' in part && part.ids.length === 1 && part.ids[0] === id;
  const change = (parts: readonly FramePart[]): FramePart[] =>
    parts.flatMap((part, i): FramePart[] => {
      if (!('sequence' in part)) {
        const isBos = bos !== undefined && isToken(part, bos) && 'sequence' in (parts[i + 1] ?? {});
        const isEos = eos !== undefined && isToken(part, eos) && 'sequence' in (parts[i - 1] ?? {});
        return (isBos && addBos === false) || (isEos && addEos === false) ? [] : [part];
      }
      const { typeId } = part;
      const before = addBos && bos !== undefined && !isToken(parts[i - 1], bos) ? [{ ids: [bos], typeId }] : [];
      const behind = addEos && eos !== undefined && !isToken(parts[i + 1], eos) ? [{ ids: [eos], typeId }] : [];
      return [...before, part, ...behind];
    });
  return { single: change(frame.single), pair: change(frame.pair) };
}

/** The frame `first A last`, `first A last B last`. RoBERTa has two separators between texts and a single type id. */
export function classifierFrame(first: number, last: number, roberta: boolean): Frame {
  const token = (id: number, typeId: number): FramePart => ({ ids: [id], typeId });
  const single = [token(first, 0), FIRST, token(last, 0)];
  const typeId = roberta ? 0 : 1;
  const second: FramePart[] = [{ sequence: 1, typeId }, token(last, typeId)];
  return { single, pair: [...single, ...(roberta ? [token(last, 0)] : []), ...second] };
}

/** @throws TokenizerError */
export function readFrame(settings: Settings | undefined, vocabulary: Vocabulary): Frame {
  if (settings === undefined) return noFrame;
  const type = settings.oneOf('type', [
    'TemplateProcessing',
    'BertProcessing',
    'RobertaProcessing',
    'ByteLevel',
    'Sequence',
  ]);
  switch (type) {
    case 'TemplateProcessing':
      return readTemplate(settings, vocabulary);
    case 'BertProcessing':
    case 'RobertaProcessing':
      return readClassifier(settings, vocabulary, type === 'RobertaProcessing');
    case 'ByteLevel':
      return noFrame;
    case 'Sequence': {
      const frames = settings.objects('processors').map((one) => readFrame(one, vocabulary));
      const framing = frames.filter((frame) => frame !== noFrame);
      if (framing.length > 1) settings.fail('processors', 'at most one that adds tokens');
      return framing[0] ?? noFrame;
    }
  }
}

function readClassifier(settings: Settings, vocabulary: Vocabulary, roberta: boolean): Frame {
  const token = (key: string): number => {
    const [content, id] = settings.list(key);
    if (typeof content !== 'string' || vocabulary.id(content) !== id) settings.fail(key, 'a token of the vocabulary');
    return id as number;
  };
  return classifierFrame(token('cls'), token('sep'), roberta);
}

function readTemplate(settings: Settings, vocabulary: Vocabulary): Frame {
  const tokens = settings.optional('special_tokens') ?? new Settings({}, settings.where);
  const part = (value: Settings): FramePart => {
    const [key] = [...value.entries()][0] ?? [];
    if (key !== 'SpecialToken' && key !== 'Sequence') {
      throw new TokenizerError(value.where, 'expected a SpecialToken or a Sequence');
    }
    const inner = value.object(key);
    const typeId = inner.integer('type_id', 0, 2 ** 31, 0);
    if (key === 'Sequence') return { sequence: inner.oneOf('id', ['A', 'B']) === 'A' ? 0 : 1, typeId };
    const name = inner.string('id');
    if (!tokens.has(name)) inner.fail('id', 'one of special_tokens');
    const ids = tokens.object(name).list('ids');
    if (!ids.every((id) => typeof id === 'number' && vocabulary.token(id) !== undefined)) {
      tokens.fail(name, 'ids of the vocabulary');
    }
    return { ids: ids as number[], typeId };
  };
  const single = settings.objects('single').map(part);
  const sequences = single.flatMap((one) => ('sequence' in one ? [one.sequence] : []));
  if (sequences.length !== 1 || sequences[0] !== 0) settings.fail('single', 'the sequence A once');
  return { single, pair: settings.has('pair') ? settings.objects('pair').map(part) : noFrame.pair };
}
