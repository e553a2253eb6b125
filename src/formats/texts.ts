/** Decodes many short texts at once. */

/**
 * The texts at bytes `starts[i]` to `ends[i]`, or undefined if one is not valid UTF-8. They are joined, decoded in one
 * call and sliced, which takes a fifth of the time of single calls. ASCII texts are joined apart from the others: in a
 * string with wider characters every character takes two bytes.
 */
export function decodeTexts(bytes: Uint8Array, starts: Uint32Array, ends: Uint32Array): string[] | undefined {
  const total = ends.reduce((sum, end, i) => sum + end - starts[i]!, 0);
  const [ascii, other] = [new Uint8Array(total), new Uint8Array(total)];
  let [asciiBytes, otherBytes] = [0, 0];
  /** Number of UTF-16 code units of each text in `other`; 0 for texts in `ascii`. */
  const units = new Uint32Array(starts.length);
  for (let i = 0; i < starts.length; i++) {
    const [start, end] = [starts[i]!, ends[i]!];
    let union = 0;
    for (let at = start; at < end; at++) union |= bytes[at]!;
    if (union < 0x80) {
      for (let at = start; at < end; at++) ascii[asciiBytes++] = bytes[at]!;
      continue;
    }
    // A text that begins with a continuation byte would be valid after its predecessor.
    if (continues(bytes[start]!)) return undefined;
    let count = 0;
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      other[otherBytes++] = byte;
      if (!continues(byte)) count += byte < 0xf0 ? 1 : 2;
    }
    units[i] = count;
  }
  const plain = decodeText(ascii.subarray(0, asciiBytes))!;
  const wide = decodeText(other.subarray(0, otherBytes));
  if (wide === undefined) return undefined;
  let [plainAt, wideAt] = [0, 0];
  return Array.from(units, (count, i) =>
    count === 0 ? plain.slice(plainAt, (plainAt += ends[i]! - starts[i]!)) : wide.slice(wideAt, (wideAt += count)),
  );
}

/** Whether a byte is a UTF-8 continuation byte. */
const continues = (byte: number): boolean => (byte & 0xc0) === 0x80;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Undefined if the bytes are not valid UTF-8. */
export function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}
