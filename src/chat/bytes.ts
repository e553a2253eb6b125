/** Python's bytes, as returned by `encode` and `to_bytes`. */
import { Text } from './text.ts';
import { Fault, Thing, type Value } from './values.ts';
import { checkLength, spendCharacters } from './work.ts';

export class Bytes extends Thing {
  readonly type = 'bytes';
  readonly data: Uint8Array;
  /** Whether it was made from user text (src/chat/text.ts). */
  readonly isForeign: boolean;

  constructor(data: Uint8Array, isForeign: boolean) {
    super();
    this.data = data;
    this.isForeign = isForeign;
  }

  text(value: string): Text {
    spendCharacters(value.length);
    return this.isForeign ? Text.foreign(value) : new Text(value);
  }

  override size(): number {
    return this.data.length;
  }

  override *iterate(): Iterator<Value> {
    yield* this.data;
  }

  override describe(): Text {
    let inner = '';
    checkLength(this.data.length * 4);
    for (const byte of this.data) {
      const known = { 9: '\\t', 10: '\\n', 13: '\\r', 92: '\\\\' }[byte];
      inner +=
        known ?? (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`);
    }
    const quote = inner.includes("'") && !inner.includes('"') ? '"' : "'";
    return this.text(`b${quote}${inner.replaceAll(quote, `\\${quote}`)}${quote}`);
  }
}

const nameOf = (value: Value | undefined, fallback: string): string => {
  if (value === undefined) return fallback;
  if (!(value instanceof Text)) throw new Fault('encoding and errors must be texts');
  return value.value.toLowerCase().replaceAll('_', '-');
};

/** Python's str.encode, for UTF-8, ASCII and Latin-1. @throws Fault */
export function encoded(text: Text, encoding: Value | undefined, errors: Value | undefined): Bytes {
  const name = nameOf(encoding, 'utf-8');
  const mode = nameOf(errors, 'strict');
  if (name === 'utf-8' || name === 'utf8') {
    if (/\p{Cs}/u.test(text.value) && mode === 'strict') throw new Fault("'utf-8' codec can't encode surrogates");
    const value = mode === 'ignore' ? text.value.replace(/\p{Cs}/gu, '') : text.value.replace(/\p{Cs}/gu, '?');
    return new Bytes(new TextEncoder().encode(value), text.isForeign);
  }
  const most = { ascii: 127, 'us-ascii': 127, 'latin-1': 255, 'iso-8859-1': 255, latin1: 255 }[name];
  if (most === undefined) throw new Fault(`unknown encoding: ${name.slice(0, 40)}`);
  const codes: number[] = [];
  for (const character of text.value) {
    const code = character.codePointAt(0)!;
    if (code <= most) codes.push(code);
    else if (mode === 'replace') codes.push(63);
    else if (mode !== 'ignore') throw new Fault(`'${name}' codec can't encode character U+${code.toString(16)}`);
  }
  return new Bytes(Uint8Array.from(codes), text.isForeign);
}

/** Python's bytes.decode. @throws Fault */
export function decoded(bytes: Bytes, encoding: Value | undefined, errors: Value | undefined): Text {
  const name = nameOf(encoding, 'utf-8');
  const mode = nameOf(errors, 'strict');
  if (name === 'utf-8' || name === 'utf8') {
    try {
      const value = new TextDecoder('utf-8', { fatal: mode === 'strict', ignoreBOM: true }).decode(bytes.data);
      return bytes.text(mode === 'ignore' ? value.replaceAll('\ufffd', '') : value);
    } catch {
      throw new Fault("'utf-8' codec can't decode these bytes");
    }
  }
  const most = { ascii: 127, 'us-ascii': 127, 'latin-1': 255, 'iso-8859-1': 255, latin1: 255 }[name];
  if (most === undefined) throw new Fault(`unknown encoding: ${name.slice(0, 40)}`);
  if (mode === 'strict' && bytes.data.some((byte) => byte > most))
    throw new Fault(`'${name}' codec can't decode these bytes`);
  return bytes.text([...bytes.data].map((byte) => (byte > most ? '\ufffd' : String.fromCharCode(byte))).join(''));
}
