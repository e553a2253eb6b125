/**
 * The tokenizer pipeline: added tokens are matched, the text between them is normalized and split into pieces, the model
 * encodes each piece, and the frame is added.
 */
import { OptionError } from '../errors.ts';
import { type AddedToken, AddedTokens, type Allowed } from './added-tokens.ts';
import { bytesInMiddle, type DecoderStep } from './decoders.ts';
import { type Frame, frameOne, framePair } from './frame.ts';
import type { TokenModel } from './model.ts';
import type { Normalizer } from './normalizers.ts';
import type { PreTokenizer } from './pretokenizers.ts';
import type {
  DecodeOptions,
  EncodedPair,
  EncodeOptions,
  IncrementalDecoder,
  RoleToken,
  TextPart,
  Tokenizer,
  TokenRole,
} from './tokenizer.ts';
import type { Vocabulary } from './vocabulary.ts';

/** Longest text accepted, in bytes of UTF-8. */
export const MAX_TEXT_BYTES = 32 * 2 ** 20;

export interface PipelineParts {
  readonly kind: string;
  readonly vocabulary: Vocabulary;
  readonly added: readonly AddedToken[];
  readonly normalize: Normalizer;
  /** Normalizer of the text after an added token. Default: `normalize`. */
  readonly normalizeRest?: Normalizer;
  readonly words: PreTokenizer;
  readonly model: TokenModel;
  readonly frame: Frame;
  readonly decoder: DecoderStep;
  readonly roles?: ReadonlyMap<TokenRole, number>;
}

const everywhere: Allowed = () => true;
const nowhere: Allowed = () => false;

export class Pipeline implements Tokenizer {
  readonly kind: string;
  readonly specialIds: readonly number[];
  readonly addedIds: readonly number[];
  readonly #parts: PipelineParts;
  readonly #special: ReadonlySet<number>;
  /** Tokens matched in the original text (#raw) and in the normalized text (#normalized). */
  readonly #raw: AddedTokens;
  readonly #normalized: AddedTokens | undefined;
  /** All tokens, matched in the original text: used for texts in parts, whose borders normalization would lose. */
  readonly #rawOfParts: AddedTokens;

  constructor(parts: PipelineParts) {
    const { kind, added, normalize } = parts;
    this.kind = kind;
    this.#parts = parts;
    this.specialIds = added.filter(({ special }) => special).map(({ id }) => id);
    this.specialIds = [...new Set(this.specialIds)].sort((a, b) => a - b);
    this.addedIds = [...new Set(added.map(({ id }) => id))].sort((a, b) => a - b);
    this.#special = new Set(this.specialIds);
    const normalized = added.filter((token) => token.normalized);
    this.#raw = new AddedTokens(added.filter((token) => !token.normalized));
    this.#rawOfParts = new AddedTokens(added.filter((token) => !token.normalized || token.special));
    if (normalized.length) this.#normalized = new AddedTokens(normalized, ({ content }) => normalize(content));
  }

  get vocabSize(): number {
    return this.#parts.vocabulary.size;
  }

  encode(text: string, { addSpecial = true, parseSpecial = false }: EncodeOptions = {}): number[] {
    return frameOne(this.#parts.frame, this.#ids([{ text, parseSpecial }]), addSpecial);
  }

  encodeParts(parts: readonly TextPart[], { addSpecial = true }: EncodeOptions = {}): number[] {
    return frameOne(this.#parts.frame, this.#ids(parts), addSpecial);
  }

  encodePair(
    first: string,
    second: string,
    { addSpecial = true, parseSpecial = false }: EncodeOptions = {},
  ): EncodedPair {
    const ids = [first, second].map((text) => this.#ids([{ text, parseSpecial }]));
    return framePair(this.#parts.frame, ids, addSpecial);
  }

  #ids(parts: readonly TextPart[]): number[] {
    for (const { text } of parts) checkWellFormed(text);
    const text = parts.length === 1 ? parts[0]!.text : parts.map((part) => part.text).join('');
    checkLength(text);
    const out: number[] = [];
    const spans = specialSpans(parts);
    const same = spans.length === 0 || (spans.length === 1 && spans[0]![1] - spans[0]![0] === text.length);
    const allowed = !same ? within(spans) : spans.length ? everywhere : nowhere;
    const [raw, later] = same ? [this.#raw, allowed] : [this.#rawOfParts, nowhere];
    const plain = (start: number, end: number): void =>
      this.#encodePlain(text.slice(start, end), start === 0, later, out);
    raw.split(text, allowed, plain, (id) => out.push(id));
    return out;
  }

  #encodePlain(text: string, first: boolean, allowed: Allowed, out: number[]): void {
    const { normalize, normalizeRest = normalize, words, model } = this.#parts;
    const normal = first ? normalize(text) : normalizeRest(text);
    const emit = (piece: string): void => void (piece && model.encode(piece, out));
    if (!this.#normalized) {
      words(normal, first, emit);
      return;
    }
    const plain = (start: number, end: number): void => words(normal.slice(start, end), first && start === 0, emit);
    this.#normalized.split(normal, allowed, plain, (id) => out.push(id));
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const run = this.#parts.decoder.start(false);
    const tokens: string[] = [];
    for (const id of ids) {
      const token = this.#shown(id, options);
      if (token !== undefined) tokens.push(token);
    }
    return run.push(tokens).join('') + run.end().join('');
  }

  incremental(options: DecodeOptions = {}): IncrementalDecoder {
    const run = this.#parts.decoder.start(false);
    return {
      push: (id) => {
        const token = this.#shown(id, options);
        return token === undefined ? '' : run.push([token]).join('');
      },
      end: () => run.end().join(''),
    };
  }

  #shown(id: number, { skipSpecial = false }: DecodeOptions): string | undefined {
    return skipSpecial && this.#special.has(id) ? undefined : this.token(id);
  }

  token(id: number): string | undefined {
    return this.#parts.vocabulary.token(id);
  }

  bytes(id: number): Uint8Array | undefined {
    const token = this.#special.has(id) || id === this.#parts.roles?.get('unknown') ? undefined : this.token(id);
    return token === undefined ? undefined : bytesInMiddle(this.#parts.decoder, token);
  }

  id(token: string): number | undefined {
    return this.#parts.vocabulary.id(token);
  }

  role(role: TokenRole): RoleToken | undefined {
    const id = this.#parts.roles?.get(role);
    const text = id === undefined ? undefined : this.token(id);
    return text === undefined ? undefined : { id: id!, text };
  }
}

function checkWellFormed(text: string): void {
  const half = text.search(/\p{Surrogate}/u);
  if (half < 0) return;
  const expected = `well-formed Unicode (half of a surrogate pair at ${half})`;
  throw new OptionError('text', expected, text.slice(half, half + 8));
}

function checkLength(text: string): void {
  if (text.length * 3 > MAX_TEXT_BYTES && new TextEncoder().encode(text).length > MAX_TEXT_BYTES) {
    throw new OptionError('text', `at most ${MAX_TEXT_BYTES} bytes`, `${text.length} characters`);
  }
}

type Span = readonly [start: number, end: number];

/** The ranges in which control tokens are allowed; adjacent ranges are joined. */
function specialSpans(parts: readonly TextPart[]): Span[] {
  const spans: Span[] = [];
  let at = 0;
  for (const { text, parseSpecial } of parts) {
    const start = at;
    at += text.length;
    if (!parseSpecial || text === '') continue;
    const last = spans.at(-1);
    if (last?.[1] === start) spans[spans.length - 1] = [last[0], at];
    else spans.push([start, at]);
  }
  return spans;
}

/** Whether a range lies within one of `spans`. Ranges must be asked for from left to right. */
function within(spans: readonly Span[]): Allowed {
  let current = 0;
  return (start, end) => {
    while (current < spans.length && spans[current]![1] <= start) current++;
    const span = spans[current];
    return span !== undefined && span[0] <= start && end <= span[1];
  };
}
