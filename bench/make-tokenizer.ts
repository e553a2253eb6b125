/**
 * Makes tokenizers of a given vocabulary size, in the format of tokenizer.json: byte-level BPE like GPT-2's, or BPE
 * with byte fallback like Llama's and Gemma's. The merges build words of letters; any text can be encoded and decoded.
 */

export interface TokenizerFiles {
  readonly tokenizer: Readonly<Record<string, unknown>>;
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
}

const LETTERS = [...'etaoinshrdlucmfwypvbgkjqxz'];

/** GPT-2's byte alphabet: printable bytes are themselves, the others U+0100 and following. */
function byteAlphabet(): string[] {
  let next = 256;
  const printable = (byte: number): boolean => byte > 32 && byte !== 127 && (byte < 128 || byte > 160) && byte !== 173;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** Merge pairs, short words first: two letters, then with a space in front, then three letters, then four. */
function* mergePairs(space: string): Generator<[left: string, right: string]> {
  const pairs = LETTERS.flatMap((a) => LETTERS.map((b) => a + b));
  for (const pair of pairs) yield [pair[0]!, pair[1]!];
  for (const letter of LETTERS) yield [space, letter];
  for (const pair of pairs) yield [space, pair];
  for (const pair of pairs) for (const letter of LETTERS) yield [pair, letter];
  for (const left of pairs) for (const right of pairs) yield [left, right];
}

/** Appends merged words to `base` up to `size` tokens. */
function grow(
  base: readonly string[],
  size: number,
  space: string,
): { vocab: Map<string, number>; merges: string[][] } {
  const vocab = new Map(base.map((token, id) => [token, id]));
  if (vocab.size > size) throw new RangeError(`a vocabulary needs ${vocab.size} entries at least, got ${size}`);
  const merges: string[][] = [];
  for (const [left, right] of mergePairs(space)) {
    if (vocab.size === size) break;
    vocab.set(left + right, vocab.size);
    merges.push([left, right]);
  }
  if (vocab.size < size) throw new RangeError(`a vocabulary has ${vocab.size} entries at most, got ${size}`);
  return { vocab, merges };
}

const special = (id: number, content: string): Record<string, unknown> => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

const bpe = (grown: ReturnType<typeof grow>, options: Record<string, unknown>): Record<string, unknown> => ({
  type: 'BPE',
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
  ...options,
  vocab: Object.fromEntries(grown.vocab),
  merges: grown.merges,
});

function byteLevelTokenizer(vocabSize: number): TokenizerFiles {
  const end = '<|endoftext|>';
  const grown = grow(byteAlphabet(), vocabSize - 1, 'Ġ');
  grown.vocab.set(end, vocabSize - 1);
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    tokenizer: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: [special(vocabSize - 1, end)],
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: byteLevel,
      decoder: byteLevel,
      model: bpe(grown, {}),
    },
    tokenizerConfig: {
      tokenizer_class: 'GPT2Tokenizer',
      add_prefix_space: false,
      bos_token: end,
      eos_token: end,
      unk_token: end,
      model_max_length: 1024,
    },
  };
}

function byteFallbackTokenizer(
  vocabSize: number,
  kind: { specials: readonly string[]; bos: string; eos: string; class: string; prependSpace: boolean },
): TokenizerFiles {
  const space = '▁';
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const ascii = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const grown = grow([...kind.specials, ...bytes, space, '\n', ...ascii], vocabSize, space);
  const bosId = kind.specials.indexOf(kind.bos);
  const bos = { SpecialToken: { id: kind.bos, type_id: 0 } };
  const sequence = (id: string): Record<string, unknown> => ({ Sequence: { id, type_id: 0 } });
  const replaceSpaces = { type: 'Replace', pattern: { String: ' ' }, content: space };
  const prepend = { type: 'Prepend', prepend: space };
  const decoders: Record<string, unknown>[] = [
    { type: 'Replace', pattern: { String: space }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
  ];
  if (kind.prependSpace) decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 });
  return {
    tokenizer: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: kind.specials.map((content, id) => special(id, content)),
      normalizer: kind.prependSpace ? { type: 'Sequence', normalizers: [prepend, replaceSpaces] } : replaceSpaces,
      pre_tokenizer: null,
      post_processor: {
        type: 'TemplateProcessing',
        single: [bos, sequence('A')],
        pair: [bos, sequence('A'), bos, sequence('B')],
        special_tokens: { [kind.bos]: { id: kind.bos, ids: [bosId], tokens: [kind.bos] } },
      },
      decoder: { type: 'Sequence', decoders },
      model: bpe(grown, { unk_token: '<unk>', fuse_unk: true, byte_fallback: true }),
    },
    tokenizerConfig: {
      tokenizer_class: kind.class,
      add_bos_token: true,
      add_eos_token: false,
      bos_token: kind.bos,
      eos_token: kind.eos,
      unk_token: '<unk>',
      clean_up_tokenization_spaces: false,
    },
  };
}

/** Gemma's first ids, up to the turn marks at 105 and 106; ids without a name are `<unusedN>`. */
function gemmaSpecials(): string[] {
  const unused = Array.from({ length: 99 }, (_, i) => `<unused${i}>`);
  return ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', '[multimodal]', ...unused, '<start_of_turn>', '<end_of_turn>'];
}

/** `vocabSize` is exact: every id from 0 to vocabSize - 1 has a token. */
export function makeTokenizer(kind: 'gpt2' | 'llama' | 'gemma', vocabSize: number): TokenizerFiles {
  if (kind === 'gpt2') return byteLevelTokenizer(vocabSize);
  if (kind === 'llama') {
    const specials = ['<unk>', '<s>', '</s>'];
    const options = { specials, bos: '<s>', eos: '</s>', class: 'LlamaTokenizer', prependSpace: true };
    return byteFallbackTokenizer(vocabSize, options);
  }
  const options = {
    specials: gemmaSpecials(),
    bos: '<bos>',
    eos: '<eos>',
    class: 'GemmaTokenizer',
    prependSpace: false,
  };
  return byteFallbackTokenizer(vocabSize, options);
}
