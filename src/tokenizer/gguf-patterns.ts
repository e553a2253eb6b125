/**
 * The patterns by which llama.cpp splits text before byte pair encoding, by the name in `tokenizer.ggml.pre`. Each pattern
 * splits the pieces that the patterns before it have made.
 */

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const spaces = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const gpt2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)";
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const notWord = '[^\\r\\n\\p{L}\\p{N}]?';

/** Words of GPT-4 and Llama 3. */
const llama3 = (digits: string, first = `${contractions}|`): string =>
  `${first}${notWord}\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${spaces}`;
/** Words of GPT-4o, which begin at capitals. */
const gpt4o = (digits: string, after: string): string =>
  `${notWord}${upper}*${lower}+${after}|${notWord}${upper}+${lower}*${after}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${spaces}`;
const deepseek3 =
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|' +
  spaces;
const cased = '[\\p{Lu}\\p{Ll}\\p{Lt}&&[\\p{L}]]';
const notPunctuation = ' ?[^(\\s|.,!?…。，、।۔،)]+';

interface Splitting {
  readonly patterns: readonly string[];
  readonly names: readonly string[];
  /** Whether a word that is a token becomes that token without merging. */
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
  readonly addSeparator?: boolean;
  /** Whether spaces are written as marks and bytes have tokens `<0x00>` to `<0xFF>`, as in SentencePiece. */
  readonly marksSpaces?: boolean;
  /** Whether tokens are spelled in characters, not in the byte alphabet. */
  readonly spellsText?: boolean;
}

const splittings: readonly Splitting[] = [
  {
    names: ['default'],
    patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2, '\\p{N}+', '[0-9][0-9][0-9]'],
  },
  {
    names: ['gpt-2', 'phi-2', 'jina-es', 'jina-de', 'gigachat', 'jina-v2-es', 'jina-v2-de', 'a.x-4.0', 'mellum'].concat(
      ['modern-bert', 'mpt', 'olmo', 'jais', 'trillion', 'granite-docling', 'exaone4'],
    ),
    patterns: [gpt2],
  },
  { names: ['jina-v1-en', 'jina-v2-code', 'roberta-bpe'], patterns: [gpt2], addSeparator: true },
  {
    names: ['llama3', 'llama-v3', 'llama-bpe', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2', 'jina-v5-nano'],
    patterns: [llama3('\\p{N}{1,3}')],
    ignoreMerges: true,
    addBos: true,
  },
  { names: ['dbrx', 'smaug-bpe'], patterns: [llama3('\\p{N}{1,3}')] },
  { names: ['glm4', 'glm5', 'chatglm-bpe'], patterns: [llama3('\\p{N}{1,3}')], ignoreMerges: true },
  {
    names: ['chameleon'],
    patterns: [
      '<sentinel:[0-9]+>',
      '(?:IMGIMG)[A-I]{1,4}Z',
      '[\\t\\n]|    |  ',
      '\\p{N}',
      '[\\p{P}!-/:-@\\[-`{-~]',
      gpt2,
    ],
    addBos: true,
  },
  {
    names: ['afmoe'],
    patterns: [
      // Groups of three digits, from the right.
      '\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))',
      '[一-鿿㐀-䶿豈-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdf\u0e40-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+',
      deepseek3,
    ],
  },
  {
    names: ['spark2_5'],
    patterns: [
      '\\p{N}{1,3}',
      '[一-龥\u3040-ゟ゠-ヿ]+',
      deepseek3.replace('[\\r\\n]*|\\s*[\\r\\n]+|', '|[\\r\\n]|'),
      '\\p{N}',
    ],
  },
  { names: ['whitespace'], patterns: ['\\S+'], spellsText: true },
  {
    names: ['qwen2', 'deepseek-r1-qwen', 'kormo', 'f2llmv2', 'stablelm2', 'hunyuan', 'megrez', 'solar-open', 'grok-2'],
    patterns: [llama3('\\p{N}')],
  },
  { names: ['ufakzeka'], patterns: [llama3('\\p{N}', '')] },
  { names: ['laguna'], patterns: ['[^\\n]+|[\\n]+', llama3('\\p{N}')] },
  { names: ['minicpm5'], patterns: ['\\p{N}{1,3}', llama3('\\p{N}+')], ignoreMerges: true },
  {
    names: ['qwen35'],
    patterns: [`${contractions}|${notWord}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${spaces}`],
  },
  {
    names: ['seed-coder'],
    patterns: [`${contractions}|${notWord}\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${spaces}`],
  },
  {
    names: ['bailingmoe', 'bailingmoe2', 'llada-moe'],
    patterns: [
      `'(?i:[sdmt]|ll|ve|re)|${notWord}\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },
  {
    names: ['starcoder', 'refact', 'command-r', 'smollm', 'codeshell', 'exaone', 'minerva-7b', 'mellum2'],
    patterns: ['\\p{N}', gpt2],
  },
  { names: ['falcon'], patterns: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', gpt2, '[0-9][0-9][0-9]'] },
  {
    names: ['deepseek-llm'],
    patterns: [
      '[\\r\\n]',
      `\\s?${cased}+`,
      '\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+',
      '\\s+$',
      '[一-龥ࠀ-一가-\ud7ff]+',
      '\\p{N}+',
    ],
  },
  {
    names: ['deepseek-coder'],
    patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', '[一-龥ࠀ-一가-\ud7ff]+', '\\p{N}'],
  },
  {
    names: ['deepseek-v3', 'hunyuan-dense', 'joyai-llm', 'hy_v4'],
    patterns: ['\\p{N}{1,3}', '[一-龥\u3040-ゟ゠-ヿ]+', deepseek3],
  },
  { names: ['tekken'], patterns: [gpt4o('\\p{N}', '')], ignoreMerges: true, addBos: true },
  {
    names: ['gpt-4o', 'llama4', 'kanana2', 'talkie', 'minimax-m2'],
    patterns: [gpt4o('\\p{N}{1,3}', `${contractions}?`)],
  },
  {
    names: ['tiny_aya', 'cohere2moe'],
    patterns: ['\\d{1,3}(?=(?:\\d{3})*\\b)', gpt4o('\\p{N}{1,3}', `${contractions}?`)],
  },
  {
    names: ['granite-embed-multi-97m'],
    patterns: [gpt4o('\\p{N}{1,3}', `${contractions}?`)],
    ignoreMerges: true,
  },
  {
    names: ['kimi-k2'],
    patterns: ['\\p{Han}+', gpt4o('\\p{N}{1,3}', `${contractions}?`).replace('[\\r\\n/]', '[\\r\\n]')],
  },
  {
    names: ['youtu'],
    patterns: [
      '[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+',
      gpt4o('\\p{N}', `${contractions}?`),
    ],
    ignoreMerges: true,
  },
  {
    names: ['jais-2'],
    patterns: [
      llama3('\\p{N}{1,3}').replace(
        '\\s+(?!\\S)|\\s+',
        `${[512, 256, 128, 64, 32, 16, 8, 4].map((n) => `\\s{${n}}(?!\\S)|`).join('')}\\s{1,2}(?!\\S)|\\s`,
      ),
    ],
  },
  {
    names: ['exaone-moe'],
    patterns: [
      `${contractions}|${notWord}(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },
  { names: ['superbpe'], patterns: ['\\p{N}+', '(?=(\\d{3})+(?!\\d))'] },
  { names: ['poro-chat', 'bloom', 'gpt3-finnish'], patterns: [notPunctuation] },
  { names: ['viking'], patterns: [notPunctuation, '\\p{N}'] },
  { names: ['gemma4', 'granite-embed-multi-311m'], patterns: ['[^\\n]+|[\\n]+'], addBos: true, marksSpaces: true },
  { names: ['sarvam-moe'], patterns: ['[^\\n]+|[\\n]+'], marksSpaces: true },
];

const byName = new Map(splittings.flatMap((splitting) => splitting.names.map((name) => [name, splitting])));

export const splittingNames: readonly string[] = [...byName.keys()];

export const splittingOf = (name: string): Splitting | undefined => byName.get(name);

/** The built-in pattern of ByteLevel in tokenizer.json. */
export const byteLevelPattern = gpt2;

/** The name in `tokenizer.ggml.pre` for these patterns; undefined if llama.cpp has none. */
export function splittingName(patterns: readonly string[], ignoreMerges: boolean): string | undefined {
  const same = splittings.filter((s) => !s.marksSpaces && s.patterns.join('\n') === patterns.join('\n'));
  return (same.find((s) => (s.ignoreMerges ?? false) === ignoreMerges) ?? same[0])?.names[0];
}
