import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { JsonNumber, parseJson } from '../../src/chat/json.ts';
import { ChatTemplate, type Message } from '../../src/chat/template.ts';

test('numbers keep what their spelling says', () => {
  const rendered = (number: string, shown = 'n'): string => {
    const messages = parseJson(`[{"role": "user", "content": "x", "n": ${number}, "list": [${number}]}]`) as Message[];
    return new ChatTemplate(`{{ messages[0].${shown} }}`).render(messages).text;
  };
  for (const [source, python] of [
    ['1', '1'],
    ['-0', '0'],
    ['1.0', '1.0'],
    ['-0.0', '-0.0'],
    ['1.50', '1.5'],
    ['1e2', '100.0'],
    ['1E22', '1e+22'],
    ['1e-7', '1e-07'],
    ['0.1', '0.1'],
    ['9007199254740991', '9007199254740991'],
    ['9007199254740993', '9007199254740993'],
    ['-123456789012345678901234567890', '-123456789012345678901234567890'],
    ['1e400', 'inf'],
  ] as const) {
    assert.equal(rendered(source), python, source);
    assert.equal(rendered(source, 'n | string'), python, source);
    assert.equal(rendered(source, 'list'), `[${python}]`, source);
    if (python !== 'inf') assert.equal(rendered(source, 'list | tojson'), `[${python}]`, source);
  }
});

test('a bigint of JavaScript is an integer', () => {
  const shown = (n: bigint): string => new ChatTemplate('{{ messages[0].n }}').render([{ role: 'user', n }]).text;
  assert.equal(shown(5n), '5');
  assert.equal(shown(2n ** 70n), '1180591620717411303424');
});

test('all else is as JSON.parse has it', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2), (value, indent) => {
      const text = JSON.stringify([value, 1.5], undefined, indent);
      assert.deepEqual(JSON.parse(JSON.stringify(parseJson(text))), JSON.parse(text));
    }),
  );
  for (const text of ['{"a": {"b": "1.0 \\" \\\\ } ]"}, "c": [ ], "d": { }, "e": [1.0, true, null , false]}']) {
    assert.deepEqual(JSON.parse(JSON.stringify(parseJson(text))), JSON.parse(text));
  }
  const own = parseJson('{"__proto__": {"x": 1.0}, "a": 1, "a": 2.5}') as Record<string, unknown>;
  assert.deepEqual(Object.keys(own), ['__proto__', 'a']);
  assert.equal(own.a, 2.5);
  assert.equal((Object.values(own)[0] as { x: unknown }).x instanceof JsonNumber, true);
});

test('invalid and too deep JSON is a SyntaxError', () => {
  for (const text of ['', '{', '[1.0,]', '01.0', '{"a" 1.0}', `${'['.repeat(5000)}1.0${']'.repeat(5000)}`])
    assert.throws(() => parseJson(text), SyntaxError, text.slice(0, 20));
});
