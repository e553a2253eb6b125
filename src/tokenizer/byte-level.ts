/**
 * GPT-2's byte alphabet: every byte is written as a visible character. Printable bytes are themselves, the 68 others are
 * U+0100 and following.
 */

const isPrintable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);

/** Character of each byte. */
export const byteCharacters: readonly string[] = (() => {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
})();

const bytesOfUnits = new Int16Array(256 + 68).fill(-1);
for (const [byte, character] of byteCharacters.entries()) bytesOfUnits[character.charCodeAt(0)] = byte;

const encoder = new TextEncoder();

export function toByteAlphabet(text: string): string {
  let out = '';
  // Start of the characters that are not copied yet.
  let plain = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit > 32 && unit < 127) continue;
    const end = (unit & 0xfc00) === 0xd800 ? i + 2 : i + 1;
    out += text.slice(plain, i);
    if (unit < 128) out += byteCharacters[unit]!;
    else for (const byte of encoder.encode(text.slice(i, end))) out += byteCharacters[byte]!;
    plain = end;
    i = end - 1;
  }
  return plain === 0 ? text : out + text.slice(plain);
}

/** Bytes of a token in the byte alphabet. A token with other characters (a special token) has the bytes of its UTF-8. */
export function bytesOfToken(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = bytesOfUnits[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return encoder.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}
