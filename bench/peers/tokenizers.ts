/**
 * Compares the speed of tokenizers with the vocabulary of GPT-2 (from gpt-tokenizer). All must give the same ids.
 *
 *   npm install --prefix bench/peers
 *   node bench/peers/tokenizers.ts [TEXT_FILE]
 */
import { readdirSync, readFileSync } from 'node:fs';
import { byteCharacters, toByteAlphabet } from '../../src/tokenizer/byte-level.ts';
import { loadTokenizer } from '../../src/tokenizer/load.ts';

type Encode = (text: string) => readonly number[];
type Ranks = readonly (string | readonly number[])[];

/** Imports a peer. TypeScript does not resolve the name, because the peers are in a separate package. */
const load = async <T>(name: string): Promise<T> => (await import(name)) as T;
const peer = await load<{ encode: Encode }>('gpt-tokenizer/encoding/r50k_base');
const { default: ranks } = await load<{ default: Ranks }>('gpt-tokenizer/bpeRanks/r50k_base');
type Library = new (json: object, config: object) => { encode(text: string): { ids: number[] } };
const { Tokenizer } = await load<{ Tokenizer: Library }>('@huggingface/tokenizers');

/**
 * Converts ranked tokens to a tokenizer.json: the merge of a token is the pair that remains after all merges of lower
 * rank.
 */
function gpt2(): object {
  const spell = (token: string | readonly number[]): string =>
    typeof token === 'string' ? toByteAlphabet(token) : [...token].map((byte) => byteCharacters[byte]!).join('');
  const tokens = ranks.map(spell);
  const vocab = new Map(tokens.map((token, id) => [token, id]));
  const merges = tokens.filter((token) => token.length > 1).map((token) => lastPair(token, vocab));
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const model = { type: 'BPE', vocab: Object.fromEntries(vocab), merges };
  return {
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: byteLevel,
    decoder: byteLevel,
    model,
  };
}

function lastPair(token: string, vocab: ReadonlyMap<string, number>): [string, string] {
  const parts = [...token];
  const rankAt = (i: number): number => vocab.get(parts[i]! + parts[i + 1]!) ?? Number.POSITIVE_INFINITY;
  while (parts.length > 2) {
    let best = 0;
    for (let i = 1; i + 1 < parts.length; i++) if (rankAt(i) < rankAt(best)) best = i;
    parts.splice(best, 2, parts[best]! + parts[best + 1]!);
  }
  return parts as [string, string];
}

/** The text of a given file, or else this project's documentation, repeated. */
function english(): string {
  const [file] = process.argv.slice(2);
  const root = new URL('../../', import.meta.url);
  const pages = readdirSync(root).filter((name) => name.endsWith('.md'));
  const text = file
    ? readFileSync(file, 'utf8')
    : pages.map((name) => readFileSync(new URL(name, root), 'utf8')).join('\n');
  return text.repeat(Math.ceil(3e6 / text.length));
}

const json = gpt2();
const ours = loadTokenizer({ tokenizerJson: JSON.stringify(json), name: 'gpt2' });
const theirs = new Tokenizer(json, {});
const engines: readonly (readonly [name: string, encode: Encode])[] = [
  ['lanewise', (text) => ours.encode(text)],
  ['gpt-tokenizer', (text) => peer.encode(text)],
  ['@huggingface/tokenizers', (text) => theirs.encode(text).ids],
];
const RUNS = 3;
/** An engine that took longer than this is not given a text ten times as long. */
const PATIENCE_MS = 1000;
const row = (...cells: readonly string[]): void => console.log(`| ${cells.join(' | ')} |`);
row('engine', 'text', 'time', 'rate');
row('---', '---', '---:', '---:');

function measure(name: string, encode: Encode, what: string, text: string, expected: readonly number[]): number {
  let best = Number.POSITIVE_INFINITY;
  let ids: readonly number[] = [];
  try {
    for (let run = 0; run < (text.length > 2e6 ? RUNS : 1); run++) {
      const start = performance.now();
      ids = encode(text);
      best = Math.min(best, performance.now() - start);
    }
  } catch (error) {
    row(name, what, (error as Error).message, '');
    return best;
  }
  const same = ids.length === expected.length && ids.every((id, i) => id === expected[i]);
  const rate = `${(Buffer.byteLength(text) / best / 1000).toFixed(1)} MB/s`;
  row(name, what, `${(best / 1000).toFixed(2)} s`, same ? rate : 'OTHER IDS');
  return best;
}

const text = english();
for (const [name, encode] of engines) measure(name, encode, 'English', text, ours.encode(text));
for (const unit of ['ab', '.', ' ', '\n']) {
  for (const [name, encode] of engines) {
    for (const length of [1e4, 1e5, 1e6]) {
      const sample = unit.repeat(length / unit.length);
      const ms = measure(name, encode, `${length} of ${JSON.stringify(unit)}`, sample, ours.encode(sample));
      if (ms > PATIENCE_MS) break;
    }
  }
}
