/** The tokens that a model expects around texts: the post-processors of tokenizer.json. */
import { TokenizerError } from '../errors.ts';
import { Settings } from './settings.ts';
import type { EncodedPair } from './tokenizer.ts';
import type { Vocabulary } from './vocabulary.ts';

/** `sequence` 0 is the first text, 1 the second; otherwise tokens of the frame itself. */
export type FramePart =
  | { readonly sequence: 0 | 1; readonly typeId: number }
  | { readonly ids: readonly number[]; readonly typeId: number };

export interface Frame {
  readonly single: readonly FramePart[];
  readonly pair: readonly FramePart[];
}

const FIRST: FramePart = { sequence: 0, typeId: 0 };
export const noFrame: Frame = { single: [FIRST], pair: [FIRST, { sequence: 1, typeId: 1 }] };

/** Without `addSpecial`, only the texts. */
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

/** The same for one text, without types. */
export function frameOne(frame: Frame, ids: number[], addSpecial: boolean): number[] {
  const around = addSpecial && frame.single.some((part) => 'ids' in part);
  return around ? frame.single.flatMap((part) => ('ids' in part ? part.ids : ids)) : ids;
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

/** `<cls> A <sep>`, `<cls> A <sep> B <sep>`; RoBERTa has two separators between texts and one type. */
function readClassifier(settings: Settings, vocabulary: Vocabulary, roberta: boolean): Frame {
  const token = (key: string, typeId: number): FramePart => {
    const [content, id] = settings.list(key);
    if (typeof content !== 'string' || vocabulary.id(content) !== id) settings.fail(key, 'a token of the vocabulary');
    return { ids: [id as number], typeId };
  };
  const single = [token('cls', 0), FIRST, token('sep', 0)];
  const typeId = roberta ? 0 : 1;
  const second: FramePart[] = [{ sequence: 1, typeId }, token('sep', typeId)];
  return { single, pair: [...single, ...(roberta ? [token('sep', 0)] : []), ...second] };
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
