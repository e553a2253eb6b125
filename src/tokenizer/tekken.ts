/** Builds a tokenizer from Mistral's tekken.json: control tokens, byte sequences in order of rank, and a pattern. */
import { TokenizerError } from '../errors.ts';
import type { AddedToken } from './added-tokens.ts';
import { specialWords } from './added-tokens.ts';
import { byteCharacters } from './byte-level.ts';
import { byteLevelDecoder } from './decoders.ts';
import { noFrame, withEnds } from './frame.ts';
import { Pipeline } from './pipeline.ts';
import { splitByPattern } from './pretokenizers.ts';
import { RankedBytes } from './ranked-bytes.ts';
import { Settings } from './settings.ts';
import { parseJson } from './sidecars.ts';
import type { Tokenizer, TokenRole } from './tokenizer.ts';
import { Vocabulary } from './vocabulary.ts';

/** Control tokens by id, for files that do not list them. */
const oldSpecial = [
  ...['<unk>', '<s>', '</s>', '[INST]', '[/INST]', '[AVAILABLE_TOOLS]', '[/AVAILABLE_TOOLS]', '[TOOL_RESULTS]'],
  ...['[/TOOL_RESULTS]', '[TOOL_CALLS]', '[IMG]', '<pad>', '[IMG_BREAK]', '[IMG_END]', '[PREFIX]', '[MIDDLE]'],
  ...['[SUFFIX]', '[SYSTEM_PROMPT]', '[/SYSTEM_PROMPT]', '[TOOL_CONTENT]'],
];

const MOST_TOKENS = 2 ** 24;

const roleNames: readonly (readonly [TokenRole, string])[] = [
  ['bos', '<s>'],
  ['eos', '</s>'],
  ['unknown', '<unk>'],
  ['padding', '<pad>'],
];

/**
 * The tokenizer puts `<s>` in front of a text.
 * @param where path of the file, named in errors
 * @throws TokenizerError
 */
export function loadTekken(text: string, where: string): Tokenizer {
  const settings = new Settings(parseJson(text, where), where);
  const config = settings.object('config');
  const specialCount = config.integer('default_num_special_tokens', 0, MOST_TOKENS);
  const size = config.integer('default_vocab_size', specialCount, MOST_TOKENS);
  const listed = settings.list('vocab');
  if (listed.length < size - specialCount) settings.fail('vocab', `at least ${size - specialCount} tokens`);
  const vocabulary = new Vocabulary(`${where}.vocab`);
  const added = readSpecial(settings, specialCount);
  for (const { content, id } of added) vocabulary.add(content, id);
  for (const [rank, entry] of listed.slice(0, size - specialCount).entries()) {
    const token = new Settings(entry, `${where}.vocab[${rank}]`);
    if (token.integer('rank', 0, MOST_TOKENS, rank) !== rank) token.fail('rank', `${rank}, the place in the list`);
    const text = spelled(token);
    // A control token with the same text takes precedence.
    if ((vocabulary.id(text) ?? specialCount) >= specialCount) vocabulary.add(text, specialCount + rank);
  }
  const missing = byteCharacters.findIndex((character) => vocabulary.id(character) === undefined);
  if (missing >= 0) throw new TokenizerError(`${where}.vocab`, `expected all 256 bytes, ${missing} is not there`);
  const roles = new Map<TokenRole, number>();
  for (const [role, content] of roleNames) {
    const found = added.find((token) => token.content === content);
    if (found) roles.set(role, found.id);
  }
  return new Pipeline({
    kind: 'BPE',
    vocabulary,
    added,
    normalize: (text) => text,
    words: splitByPattern(config.string('pattern'), `${where}.config.pattern`),
    model: new RankedBytes(vocabulary, specialWords(added)),
    frame: withEnds(noFrame, { bos: roles.get('bos'), addBos: true }),
    decoder: byteLevelDecoder,
    roles,
  });
}

/** The listed control tokens; other ids below `count` become `<SPECIAL_n>`. */
function readSpecial(settings: Settings, count: number): AddedToken[] {
  const names = new Map<number, { content: string; special: boolean }>();
  if (settings.has('special_tokens')) {
    for (const token of settings.objects('special_tokens')) {
      const id = token.integer('rank', 0, count - 1);
      names.set(id, { content: token.string('token_str'), special: token.flag('is_control', true) });
    }
  } else for (const [id, content] of oldSpecial.entries()) if (id < count) names.set(id, { content, special: true });
  return Array.from({ length: count }, (_, id) => ({
    id,
    ...(names.get(id) ?? { content: `<SPECIAL_${id}>`, special: true }),
    singleWord: false,
    leftStrip: false,
    rightStrip: false,
    normalized: false,
  }));
}

/** A token's bytes in the byte alphabet. */
function spelled(token: Settings): string {
  let bytes: string;
  try {
    bytes = atob(token.string('token_bytes'));
  } catch {
    return token.fail('token_bytes', 'base64');
  }
  let out = '';
  for (let i = 0; i < bytes.length; i++) out += byteCharacters[bytes.charCodeAt(i)]!;
  return out;
}
