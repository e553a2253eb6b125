/** fast-check generators of SafeTensors files, valid ones and ones broken at meaningful places. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FormatError } from '../../src/errors.ts';
import { memorySource } from '../../src/formats/bytes.ts';
import {
  type Dtype,
  dtypeBits,
  encodeSafeTensorsHeader,
  readSafeTensorsHeader,
  type TensorInfo,
  tensorBytes,
} from '../../src/formats/safetensors.ts';

const wellFormed = fc.string({ unit: 'binary', maxLength: 12 });
const dtypes = fc.constantFrom(...(Object.keys(dtypeBits) as Dtype[]));
const tensors = fc.uniqueArray(
  fc
    .record({ name: wellFormed, dtype: dtypes, shape: fc.array(fc.nat(5), { maxLength: 4 }) })
    .filter(({ name, dtype, shape }) => name !== '__metadata__' && Number.isInteger(tensorBytes(dtype, shape))),
  { maxLength: 8, selector: (tensor) => tensor.name },
);

export interface WrittenFile {
  readonly bytes: Uint8Array;
  readonly placed: readonly TensorInfo[];
  readonly metadata: Record<string, string>;
}

export const writtenFiles: fc.Arbitrary<WrittenFile> = fc
  .tuple(tensors, fc.dictionary(wellFormed, wellFormed, { maxKeys: 3 }))
  .map(([shapes, metadata]) => {
    const header = encodeSafeTensorsHeader(shapes, metadata);
    const bytes = new Uint8Array(header.fileBytes);
    bytes.set(header.bytes);
    return { bytes, placed: header.tensors, metadata };
  });

/** Texts with a meaning in the format or in JSON. */
const numbers = fc.oneof(
  { weight: 3, arbitrary: fc.nat(200).map(String) },
  fc.constantFrom('9007199254740993', '18446744073709551615', '1e400', '-1', '2.0', '-0', '01', '1e3', '"4"', 'null'),
);
const strings = fc.oneof(
  fc.constantFrom(
    '"dtype"',
    '"shape"',
    '"data_offsets"',
    '"__metadata__"',
    '"__proto__"',
    '"\\u0041"',
    '"\\ud800"',
    '7',
  ),
  dtypes.map((dtype) => JSON.stringify(dtype)),
);
const pieces = fc.constantFrom(...'{}[],:"\\ \n0-.e', 'null', 'true', '[0,0]', '[]', '{}', '\u0000', 'é');

interface Change {
  /** Index of the match in the header to replace, modulo their number. */
  readonly pattern: RegExp;
  readonly n: number;
  /** The replacement; `$&` stands for the match. */
  readonly by: string;
}

const n = fc.nat(10_000);
const change = (pattern: RegExp, by: fc.Arbitrary<string>): fc.Arbitrary<Change> =>
  fc.record({ pattern: fc.constant(pattern), n, by });
const textChanges: fc.Arbitrary<Change> = fc.oneof(
  { weight: 4, arbitrary: change(/\d+/g, numbers) },
  { weight: 3, arbitrary: change(/"[^"\\]*"/g, strings) },
  { weight: 2, arbitrary: change(/"[^"\\]*":(?:\{[^{}]*\}|\[[^[\]]*\]),?/g, fc.constantFrom('', '$&,$&', '$&$&')) },
  { weight: 2, arbitrary: change(/(?=.|$)/gs, pieces) },
  { weight: 2, arbitrary: change(/./gs, fc.oneof(pieces, fc.constant(''))) },
);
const rarely = <T>(arbitrary: fc.Arbitrary<T>, oneIn: number): fc.Arbitrary<T | undefined> =>
  fc.oneof({ weight: oneIn - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
const fileChanges = fc.record({
  byte: rarely(fc.tuple(n, fc.nat(255)), 6),
  length: rarely(fc.bigInt(0n, 2n ** 64n - 1n), 30),
  cut: rarely(n, 30),
  data: rarely(fc.nat(200), 6),
});

/**
 * Files with one to three changes of the header's text, sometimes a byte, the declared length (which follows the text
 * otherwise), the end or the size of the data.
 */
export const mutants: fc.Arbitrary<Uint8Array> = fc
  .tuple(writtenFiles, fc.array(textChanges, { minLength: 1, maxLength: 3 }), fileChanges)
  .map(([{ bytes }, list, { byte, length, cut, data }]) => {
    const headerEnd = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    let text = new TextDecoder().decode(bytes.subarray(8, headerEnd));
    for (const { pattern, n, by } of list) {
      const matches = [...text.matchAll(pattern)];
      if (matches.length === 0) continue;
      const match = matches[n % matches.length]!;
      const after = match.index + match[0].length;
      text = text.slice(0, match.index) + by.replaceAll('$&', match[0]) + text.slice(after);
    }
    const header = new TextEncoder().encode(text);
    if (byte && header.length > 0) header[byte[0] % header.length] = byte[1];
    const file = new Uint8Array(8 + header.length + (data ?? bytes.length - headerEnd));
    new DataView(file.buffer).setBigUint64(0, length ?? BigInt(header.length), true);
    file.set(header, 8);
    return file.subarray(0, cut === undefined ? file.length : cut % file.length);
  });

/**
 * Reads a broken file: a FormatError of one line, or tensors that lie in the file one after the other. True if it
 * loads.
 */
export async function checkMutant(bytes: Uint8Array): Promise<boolean> {
  let header: Awaited<ReturnType<typeof readSafeTensorsHeader>>;
  try {
    header = await readSafeTensorsHeader(memorySource('x', bytes));
  } catch (error) {
    assert.ok(error instanceof FormatError, `a FormatError, not ${error}`);
    assert.ok(!error.message.includes('\n') && error.message.length < 1000, error.message);
    assert.ok(error.offset === undefined || error.offset <= bytes.length, error.message);
    return false;
  }
  let end = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  for (const [name, tensor] of header.tensors) {
    assert.equal(tensor.name, name);
    assert.equal(tensor.offset, end);
    assert.equal(tensor.byteLength, tensorBytes(tensor.dtype, tensor.shape));
    end += tensor.byteLength;
  }
  assert.equal(end, bytes.length);
  return true;
}
