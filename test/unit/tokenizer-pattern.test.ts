/** The pattern engine of tokenizers, against JavaScript's for patterns with the same meaning. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { TokenizerError } from '../../src/errors.ts';
import { Pattern } from '../../src/tokenizer/pattern.ts';
import { GPT2_PATTERN } from '../../src/tokenizer/pretokenizers.ts';

function matches(source: string, text: string): string[] {
  const found: string[] = [];
  new Pattern(source, 'here').forEach(text, (start, end) => found.push(text.slice(start, end)));
  return found;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const tail = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
/** Published patterns and their equivalents in JavaScript. */
const known: Readonly<Record<string, string>> = {
  gpt2: GPT2_PATTERN,
  cl100k: `'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
  llama3: `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${tail}`,
  qwen2: `${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${tail}`,
  o200k: `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${contractions}?|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${contractions}?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${tail}`,
  digits: '\\d{1,3}(?=(?:\\d{3})*\\b)',
  words: '\\w+|[^\\w\\s]+',
  lazy: 'a.*?b|(?:ab|a)+?c|(?<=x)y|(?<!x)z',
  nested: '(?:a|bc)*d|(?:(?:x|y)+z?)*w',
};
/** JavaScript has neither possessive quantifiers nor groups with flags (everywhere), and other short classes. */
const inJavaScript = (source: string): RegExp =>
  new RegExp(
    source
      .replaceAll('?+', '?')
      .replaceAll('++', '+')
      .replaceAll(contractions, "(?:'[sSſ]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])")
      .replaceAll('(?i:[sdmt]|ll|ve|re)', '(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])')
      .replaceAll('\\w', '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}')
      .replaceAll(/(?<!\[)(\\p\{Alphabetic\}\S*?\\p\{Pc\})(?=\+)/g, '[$1]')
      .replaceAll('\\s', '\\p{White_Space}')
      .replaceAll('\\S', '\\P{White_Space}')
      .replaceAll('\\d', '\\p{Nd}')
      .replaceAll('\\b', '(?!\\p{Nd})'),
    'gu',
  );

const pieces = fc.constantFrom(
  ...["'s", "'LL", "'", ' ', '  ', '\n', '\r\n', '\t', 'a', 'b', 'c', 'd', 'w', 'x', 'y', 'z', 'Word', 'ÀÉ', 'é', 'ſ'],
  ...[
    '123',
    '1',
    '٣',
    '½',
    '.',
    '!!',
    '/',
    '_',
    '日本',
    'ア',
    'नि',
    '\u0301',
    '🦊',
    '👩‍👩‍👧',
    '\u00a0',
    '\u0085',
    '\ufeff',
    'ǅ',
  ],
);

for (const [name, source] of Object.entries(known)) {
  test(`${name}: the matches that JavaScript finds`, () => {
    const expected = inJavaScript(source);
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 30 }), (parts) => {
        // Only digits may be next to \\b here: everything else is a word boundary in another place.
        const text =
          name === 'digits' ? parts.map((part) => (/\p{Nd}/u.test(part) ? part : ' ')).join('') : parts.join('');
        assert.deepEqual(matches(source, text), text.match(expected) ?? [], JSON.stringify(text));
      }),
      { numRuns: 500 },
    );
  });
}

test('syntax that differs between Oniguruma and JavaScript', () => {
  assert.deepEqual(matches('[[:alpha:]]+|\\h+', 'straße 0fF'), ['straße', '0fF']);
  assert.deepEqual(matches('[\\p{L}&&[^a-z]]+', 'abcDEf'), ['DE']);
  assert.deepEqual(matches('\\p{^L}+', 'ab12'), ['12']);
  assert.deepEqual(matches('\\p{Han}+', 'a漢字b'), ['漢字']);
  assert.deepEqual(matches('\\x41\\x{1F98A}|\\u0042', 'A🦊B'), ['A🦊', 'B']);
  assert.deepEqual(matches('(?i)straSSe', 'STRASSE'), ['STRASSE']);
  assert.deepEqual(matches('a++b|a', 'aab'), ['aab']);
  assert.deepEqual(matches('(?>a+)ab|b', 'aab'), ['b']);
  assert.deepEqual(matches('\\Aa|a\\z|\\Ba', 'aaa a'), ['a', 'a', 'a', 'a']);
  assert.deepEqual(matches('[]a]+|[-b]', 'a]-'), ['a]', '-']);
});

test('long runs need no stack', () => {
  for (const text of ['.', ' ', '\n', 'a', 'é', '日', '🦊', '1', 'aB'].map((one) => one.repeat(1e6 / one.length))) {
    for (const source of [known.gpt2!, known.llama3!, known.o200k!]) assert.equal(matches(source, text).join(''), text);
  }
});

test('patterns without end are stopped', () => {
  for (const [source, text] of [
    ['(a+)+$', `${'a'.repeat(40)}b`],
    ['(a|a)*$', `${'a'.repeat(60)}b`],
    ['(?:a*)*b', 'a'.repeat(1000)],
    ['a*a*a*a*b', 'a'.repeat(5000)],
    ['a*b', 'a'.repeat(100_000)],
  ] as const) {
    assert.throws(() => matches(source, text), /TokenizerError|steps/, source);
  }
});

test('patterns that cannot be read are refused with a TokenizerError, whatever they are', () => {
  for (const source of [
    '(',
    ')',
    '[',
    'a{2000}',
    '*a',
    '(?<name>a)',
    '\\1',
    '\\k<a>',
    '\\p{Parrot}',
    '(?x)a',
    '\\G',
    '(?<=ab)c',
  ]) {
    assert.throws(() => new Pattern(source, 'here'), TokenizerError, source);
  }
  assert.throws(() => new Pattern('('.repeat(1e5), 'here'), TokenizerError);
  const symbols = fc.constantFrom(
    ...'()[]{}|*+?^$\\.-&:!=<>,0129abpPswdSLNi'.split(''),
    '(?:',
    '\\p{L}',
    '[^',
    '{1,3}',
    '&&',
  );
  fc.assert(
    fc.property(fc.array(symbols, { maxLength: 12 }), fc.string({ maxLength: 12 }), (parts, text) => {
      try {
        matches(parts.join(''), text);
      } catch (error) {
        assert.ok(error instanceof TokenizerError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
