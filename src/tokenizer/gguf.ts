/** Builds a tokenizer from the vocabulary of a GGUF file (tokenizer.ggml.*), with the behaviour of llama.cpp. */
import { TokenizerError } from '../errors.ts';
import { type AddedToken, specialWords } from './added-tokens.ts';
import { Bpe } from './bpe.ts';
import { toByteAlphabet } from './byte-level.ts';
import { CharsMap } from './charsmap.ts';
import {
  byteFallbackDecoder,
  byteLevelDecoder,
  decodeInTurn,
  metaspaceDecoder,
  sentencePieceDecoder,
  spacedWordDecoder,
} from './decoders.ts';
import type { Frame, FramePart } from './frame.ts';
import { splittingNames, splittingOf } from './gguf-patterns.ts';
import { tokenTypes } from './gguf-vocabulary.ts';
import { bertNormalizer, inTurn, markSpaces } from './normalizers.ts';
import { Pipeline, type PipelineParts } from './pipeline.ts';
import { bertWords, inSequence, splitByPattern, whole } from './pretokenizers.ts';
import { sentencePieceNormalizer } from './sentencepiece-normalizer.ts';
import { Settings } from './settings.ts';
import { SPACE_MARK } from './spaces.ts';
import { Spm } from './spm.ts';
import type { Tokenizer, TokenRole } from './tokenizer.ts';
import { Unigram } from './unigram.ts';
import { byteTokens, Vocabulary } from './vocabulary.ts';
import { WordPiece } from './words.ts';

const PREFIX = 'tokenizer.ggml.';

const roleNames: readonly (readonly [TokenRole, string])[] = [
  ['bos', 'bos'],
  ['eos', 'eos'],
  ['eot', 'eot'],
  ['eom', 'eom'],
  ['unknown', 'unknown'],
  // Misspelled in the format.
  ['separator', 'seperator'],
  ['padding', 'padding'],
  ['classifier', 'cls'],
  ['mask', 'mask'],
];
/** WordPiece's limit of characters per word: none, as in llama.cpp. */
const LONGEST_WORD = 2 ** 30;

/**
 * @param metadata keys and plain values: strings, numbers, booleans, lists of strings, typed arrays of numbers
 * @param name named in errors
 * @param onWarning called for role ids that the vocabulary lacks
 * @returns undefined if the file has no vocabulary
 * @throws TokenizerError
 */
export function tokenizerFromGguf(
  metadata: ReadonlyMap<string, unknown>,
  name: string,
  onWarning?: (message: string) => void,
): Tokenizer | undefined {
  const own = [...metadata].filter(([key]) => key.startsWith(PREFIX));
  const settings = new Settings(
    Object.fromEntries(own.map(([key, value]) => [key.slice(PREFIX.length), value])),
    `${name}: ${PREFIX.slice(0, -1)}`,
  );
  const kind = settings.string('model', 'none');
  if (kind === 'none' || kind === 'no_vocab') return undefined;
  const build = Object.hasOwn(builders, kind) ? builders[kind]! : settings.fail('model', 'gpt2, llama, bert or t5');
  const file = new GgufVocabularyFile(settings, onWarning);
  return new Pipeline({
    kind,
    vocabulary: file.vocabulary,
    added: file.added,
    ...build(file),
    roles: file.roles(),
  });
}

type ModelParts = Omit<PipelineParts, 'kind' | 'vocabulary' | 'added'>;

const builders: Readonly<Record<string, (file: GgufVocabularyFile) => ModelParts>> = {
  gpt2: bytePairs,
  gemma4: bytePairs,
  llama: sentencePieces,
  bert: wordPieces,
  t5: unigrams,
};

/** Tokens that end a text or a turn. llama.cpp treats them as control tokens whatever their type. */
const endTexts: ReadonlySet<string> = new Set([
  ...['<|eot_id|>', '<|im_end|>', '<|end|>', '<|return|>', '<|call|>', '<|flush|>', '<|calls|>', '<end_of_turn>'],
  ...['<|endoftext|>', '</s>', '<|eom_id|>', '<EOT>', '_<EOT>', '[EOT]', '[EOS]', '<|end_of_text|>'],
  ...['<end_of_utterance>', '<eos>', '<turn|>', '<|tool_response>', '<｜end▁of▁sentence｜>', '[e~['],
]);

/** The parts that all kinds of vocabulary share. */
class GgufVocabularyFile {
  readonly settings: Settings;
  readonly vocabulary: Vocabulary;
  readonly types: ArrayLike<number> | undefined;
  readonly added: readonly AddedToken[];
  /** Ids that the tokenizer's model never produces from text. */
  readonly special: ReadonlySet<number>;

  readonly #onWarning: ((message: string) => void) | undefined;
  readonly #warned = new Set<string>();

  constructor(settings: Settings, onWarning: ((message: string) => void) | undefined) {
    this.settings = settings;
    this.#onWarning = onWarning;
    this.vocabulary = new Vocabulary(`${settings.where}.tokens`);
    const tokens = settings.list('tokens');
    for (const [id, token] of tokens.entries()) this.vocabulary.add(token === '' ? `[EMPTY_${id}]` : token, id);
    this.types = this.numbers('token_type');
    // Tokens with these roles are control tokens even if the file has no types.
    const roles = new Set(['bos', 'eos', 'eot', 'eom', 'unknown', 'padding'].map((role) => this.id(role)));
    this.added = tokens.flatMap((_, id) => this.#added(id, roles.has(id)));
    this.special = specialWords(this.added);
  }

  /** The token as an added token, if it is a control token or user defined. */
  #added(id: number, hasRole: boolean): AddedToken[] {
    const given = this.types?.[id] ?? (hasRole ? tokenTypes.control : tokenTypes.normal);
    // Some converters give chat tokens the type of normal tokens.
    const isEnd = given !== tokenTypes.userDefined && endTexts.has(this.vocabulary.token(id)!);
    const type = isEnd ? tokenTypes.control : given;
    const special = type === tokenTypes.control || type === tokenTypes.unknown;
    if (!special && type !== tokenTypes.userDefined) return [];
    const content = this.vocabulary.token(id)!;
    return [{ id, content, special, singleWord: false, leftStrip: false, rightStrip: false, normalized: false }];
  }

  /** An array with a number for each token. @throws TokenizerError for too few */
  numbers(key: string): ArrayLike<number> | undefined {
    const value = this.settings.get(key);
    if (value === undefined) return undefined;
    const isNumbers = ArrayBuffer.isView(value) && !(value instanceof DataView) && !(value instanceof BigInt64Array);
    const numbers = isNumbers ? (value as unknown as ArrayLike<number>) : [];
    if (numbers.length < this.vocabulary.size) this.settings.fail(key, `${this.vocabulary.size} numbers`);
    return numbers;
  }

  /** Id of a role (bos, eos ...). An id beyond the vocabulary is ignored with a warning. */
  id(role: string, fallback?: number): number | undefined {
    const key = `${role}_token_id`;
    const { settings, vocabulary } = this;
    if (!settings.has(key)) return fallback;
    const id = settings.get(key);
    if (typeof id !== 'number' || !Number.isInteger(id)) return settings.fail(key, 'the id of a token');
    if (id >= 0 && id < vocabulary.size) return id;
    if (!this.#warned.has(key)) {
      this.#warned.add(key);
      this.#onWarning?.(
        `${settings.where}.${key}: expected an id below ${vocabulary.size}, found ${id}; it is ignored`,
      );
    }
    return fallback;
  }

  roles(): Map<TokenRole, number> {
    const ids = new Map<TokenRole, number>();
    for (const [role, name] of roleNames) {
      const id = this.id(name);
      if (id !== undefined) ids.set(role, id);
    }
    return ids;
  }

  /** @throws TokenizerError if the file asks for a token to be added but has no id for it */
  frame(
    defaults: { bos?: boolean; eos?: boolean; separator?: boolean },
    ids: Record<string, number> = {},
    alwaysBos = false,
  ): Frame {
    const part = (role: string, key: string, wanted = false, asked = this.settings.flag(key, wanted)): FramePart[] => {
      if (!asked) return [];
      const id = this.id(role, ids[role]);
      if (id === undefined || id >= this.vocabulary.size) {
        // llama.cpp's default ids may be beyond a small vocabulary.
        if (!this.settings.has(key) || this.settings.has(`${role}_token_id`)) return [];
        throw new TokenizerError(this.settings.where, `${key} is set, but there is no ${role}_token_id`);
      }
      return [{ ids: [id], typeId: 0 }];
    };
    const first = part('bos', 'add_bos_token', defaults.bos, alwaysBos || undefined);
    const last = [
      ...part('eos', 'add_eos_token', defaults.eos),
      ...part('seperator', 'add_sep_token', defaults.separator),
    ];
    const single: FramePart[] = [...first, { sequence: 0, typeId: 0 }, ...last];
    return { single, pair: [...single, { sequence: 1, typeId: 1 }, ...last] };
  }
}

function bytePairs(file: GgufVocabularyFile): ModelParts {
  const { settings, vocabulary, special } = file;
  const name = settings.string('pre', settings.get('model') === 'gemma4' ? 'gemma4' : 'default');
  const splitting = splittingOf(name) ?? settings.fail('pre', `one of ${splittingNames.join(', ')}`);
  const { patterns, ignoreMerges, marksSpaces, spellsText, addBos, addSeparator } = splitting;
  const words = patterns.map((pattern) => splitByPattern(pattern, `${settings.where}.pre`));
  const merges = settings.list('merges');
  return {
    normalize: marksSpaces ? markSpaces : (text) => text,
    words: inSequence(words),
    model: new Bpe({
      vocabulary,
      merges,
      special,
      ignoreMerges,
      ...(marksSpaces
        ? { byteFallback: true, isToken: (word: string) => /^\n+$/.test(word) }
        : spellsText
          ? {}
          : { spell: toByteAlphabet }),
      where: settings.where,
    }),
    // Gemma 4 always gets its bos token, whatever the file says.
    frame:
      name === 'gemma4' ? file.frame({ bos: true }, {}, true) : file.frame({ bos: addBos, separator: addSeparator }),
    decoder: marksSpaces ? sentencePieceDecoder(0) : byteLevelDecoder,
  };
}

function sentencePieces(file: GgufVocabularyFile): ModelParts {
  const { settings, vocabulary, special } = file;
  const scores = file.numbers('scores') ?? settings.fail('scores', 'a list of numbers');
  const prefix = settings.flag('add_space_prefix', true);
  return {
    normalize: prefix ? inTurn([(text) => (text === '' ? '' : ` ${text}`), markSpaces]) : markSpaces,
    words: whole,
    model: new Spm({
      vocabulary,
      scores,
      excluded: special,
      unknown: file.id('unknown', 0),
      bytes: byteTokens(vocabulary),
    }),
    frame: file.frame({ bos: true }, { bos: 1, eos: 2 }),
    decoder: sentencePieceDecoder(prefix ? 1 : 0),
  };
}

function wordPieces(file: GgufVocabularyFile): ModelParts {
  const { settings, vocabulary, special } = file;
  const unknown = file.id('unknown', 100)!;
  if (unknown >= vocabulary.size) settings.fail('unknown_token_id', 'an id of the vocabulary');
  const lowercase = settings.flag('normalizer.lowercase', true);
  const stripAccents = settings.flag('normalizer.strip_accents', lowercase);
  return {
    normalize: bertNormalizer({ clean: true, chinese: true, stripAccents, lowercase }),
    words: bertWords,
    model: new WordPiece({
      vocabulary,
      special,
      unknown,
      firstPrefix: SPACE_MARK,
      prefix: '',
      longestWord: LONGEST_WORD,
    }),
    frame: file.frame({ bos: true, separator: true }, { bos: file.id('cls', 101)!, seperator: 102 }),
    decoder: spacedWordDecoder,
  };
}

function unigrams(file: GgufVocabularyFile): ModelParts {
  const { settings, vocabulary, types } = file;
  const scores = file.numbers('scores') ?? settings.fail('scores', 'a list of numbers');
  const typeOf = (id: number): number => types?.[id] ?? tokenTypes.normal;
  const normal = [...vocabulary.entries()].filter(([, id]) => typeOf(id) === tokenTypes.normal);
  const matched = [...vocabulary.entries()].filter(([, id]) =>
    [tokenTypes.normal, tokenTypes.userDefined, tokenTypes.unused].includes(typeOf(id) as 1 | 4 | 5),
  );
  const prefix = settings.flag('add_space_prefix', false);
  const map = settings.get('precompiled_charsmap');
  const bytes = map instanceof Uint8Array || map instanceof Int8Array ? new Uint8Array(map) : undefined;
  return {
    normalize: sentencePieceNormalizer({
      map: bytes?.length ? new CharsMap(bytes, `${settings.where}.precompiled_charsmap`) : undefined,
      prefix,
      mergeSpaces: settings.flag('remove_extra_whitespaces', false),
    }),
    words: whole,
    model: new Unigram({
      pieces: matched.map(([text, id]) => [text, typeOf(id) === tokenTypes.userDefined ? 0 : scores[id]!, id]),
      minScore: normal.reduce((least, [, id]) => Math.min(least, scores[id]!), Number.POSITIVE_INFINITY),
      unknown: file.id('unknown', 2),
    }),
    frame: file.frame({ eos: true }, { eos: 1 }),
    decoder: decodeInTurn([byteFallbackDecoder, metaspaceDecoder(SPACE_MARK, true)]),
  };
}
