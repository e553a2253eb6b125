/** What goes between a hosted engine and its caller as data: tokenizers, prompts, sources in browsers. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeTokenizer, readTokenizerSource, type TokenizerSource } from '../../src/engine/tokenizer-source.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { packPrompt, unpackPrompt } from '../../src/hosting/plain-data.ts';
import { LazyTokenizer, packTokenizer } from '../../src/hosting/tokenizer-data.ts';
import { sourceForWorker } from '../../src/hosting/web-source.ts';
import { ChatTemplate, JsonNumber, OptionError } from '../../src/node.ts';

const golden = fileURLToPath(new URL('../golden/', import.meta.url));
const texts = ['Once upon a time', 'Ein Löwe, 東京 😀\n\n  two', '<s> </s> <|endoftext|> [SEP]', "don't 12345"];

/** As a message carries it: buffers move, the rest is cloned. */
function carried<T>(value: T, transfer: ArrayBuffer[]): T {
  return structuredClone(value, { transfer });
}

function assertSame(source: TokenizerSource, name: string): void {
  const expected = makeTokenizer(source)!;
  const buffers: ArrayBuffer[] = [];
  const packed = carried(packTokenizer(source, buffers), buffers);
  const tokenizer = new LazyTokenizer(packed, expected.vocabSize, name).get()!;
  for (const text of texts) {
    const ids = expected.encode(text, { parseSpecial: true });
    assert.deepEqual(tokenizer.encode(text, { parseSpecial: true }), ids, `${name}: ${text}`);
    assert.equal(tokenizer.decode(ids), expected.decode(ids));
  }
  assert.deepEqual(tokenizer.specialIds, expected.specialIds);
  for (let id = 0; id < expected.vocabSize; id++) assert.equal(tokenizer.token(id), expected.token(id));
  // What was packed is still whole.
  assert.deepEqual(makeTokenizer(source)!.encode(texts[0]!), expected.encode(texts[0]!));
}

test('tokenizers of all kinds of files are the same at the other end', async () => {
  const kinds = new Set<string>();
  for (const place of ['tokenizers', 'sidecars']) {
    for (const name of readdirSync(`${golden}${place}`)) {
      const source = await readTokenizerSource(nodeFolder(`${golden}${place}/${name}`));
      if (!source) continue;
      kinds.add(source.kind);
      assertSame(source, name);
    }
  }
  const folder = nodeFolder(`${golden}gguf`);
  for (const name of ['gpt2-f32.gguf', 'gemma3-f32.gguf', 'llama-f32.gguf']) {
    const { metadata, close } = await openGguf(folder, name);
    const source = await readTokenizerSource(folder, { metadata, files: [name] });
    await close();
    kinds.add(source!.kind);
    assertSame(source!, name);
  }
  for (const kind of ['json', 'gguf', 'merges']) assert.ok(kinds.has(kind), kind);
});

test('what a template sees of a prompt is the same at the other end', () => {
  class Weather {
    readonly city = 'Paris';
    get secret(): string {
      return 'of the class, which is no value of the object';
    }
  }
  const values = {
    list: [1, 'two', null, true, 2n ** 70n, [[]]],
    number: new JsonNumber('1.0e3'),
    nested: { ['__proto__']: { deep: new JsonNumber('12345678901234567890') }, object: new Weather() },
    map: new Map([['lost', 1]]),
    absent: undefined,
  };
  const template = new ChatTemplate('{{ a | tojson }}|{{ messages[0].content }}');
  const messages = [{ role: 'user', content: 'Hello' }] as const;
  const prompt = { messages, template, variables: { a: values }, now: new Date(0), continueFinalMessage: false };
  const back = unpackPrompt(carried(packPrompt(prompt), [])) as typeof prompt;
  const { map: _, ...rest } = values;
  const expected = template.render(messages, { variables: { a: { ...rest, map: {} } }, now: prompt.now });
  assert.deepEqual(back.template.render(back.messages, { variables: back.variables, now: back.now }), expected);
  assert.deepEqual([back.now, back.continueFinalMessage], [new Date(0), false]);
  for (const other of ['text', { tokenIds: [1, 2] }, { text: 'x', parseSpecial: true }])
    assert.deepEqual(unpackPrompt(carried(packPrompt(other), [])), other);
  // A template is parsed once for all its turns.
  assert.equal((unpackPrompt(packPrompt(prompt)) as typeof prompt).template, back.template);
});

test('sources of a page are whole for its worker', () => {
  const before = Object.getOwnPropertyDescriptor(globalThis, 'location');
  Object.defineProperty(globalThis, 'location', { value: { href: 'https://a.example/app/' }, configurable: true });
  try {
    const url = 'https://b.example/m.gguf';
    assert.equal(sourceForWorker('./m.gguf'), 'https://a.example/app/m.gguf');
    assert.equal(sourceForWorker('/m.gguf'), 'https://a.example/m.gguf');
    assert.deepEqual(['org/name', url, new URL(url)].map(sourceForWorker), ['org/name', url, url]);
    const files = [new File(['x'], 'config.json'), new File(['y'], 'm.safetensors')];
    assert.deepEqual(sourceForWorker(new Set(files)), files);
    assert.equal(sourceForWorker(files[0]!), files[0]);
    for (const wrong of [1, null, {}, () => {}]) assert.throws(() => sourceForWorker(wrong as never), OptionError);
  } finally {
    if (before) Object.defineProperty(globalThis, 'location', before);
    else Reflect.deleteProperty(globalThis, 'location');
  }
});
