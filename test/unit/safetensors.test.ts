/** The SafeTensors header, with valid and hostile inputs. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { FormatError } from '../../src/errors.ts';
import { type ByteSource, byteSource, memorySource } from '../../src/formats/bytes.ts';
import {
  dtypeBits,
  encodeSafeTensorsHeader,
  readSafeTensorsHeader,
  type SafeTensorsHeader,
  tensorBytes,
} from '../../src/formats/safetensors.ts';

const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A file of this header, byte for byte, and `dataBytes` zeros. */
function fileOf(header: string | Uint8Array, dataBytes = 0, length?: bigint): Uint8Array {
  const json = typeof header === 'string' ? utf8(header) : header;
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const read = (bytes: Uint8Array): Promise<SafeTensorsHeader> =>
  readSafeTensorsHeader(memorySource('x.safetensors', bytes));

/** Reading must end in a FormatError of this code, about this key, naming the file. */
async function refused(bytes: Uint8Array, code: string, key?: string): Promise<FormatError> {
  try {
    await read(bytes);
  } catch (error) {
    assert.ok(error instanceof FormatError, `a FormatError, not ${error}`);
    assert.equal(error.code, code, error.message);
    assert.equal(error.file, 'x.safetensors');
    if (key !== undefined) assert.equal(error.key, key);
    assert.ok(!error.message.includes('\n'), 'one line');
    return error;
  }
  assert.fail(`read without ${code}`);
}

const entry = (dtype: string, shape: string, offsets: string): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
const oneTensor = (dtype: string, shape: string, offsets: string): string => `{"w":${entry(dtype, shape, offsets)}}`;

const valid = fileOf(
  `{"__metadata__":{"format":"pt"},"b":${entry('F16', '[3]', '[8,14]')},"a":${entry('F32', '[1,2]', '[0,8]')}} `,
  14,
);

test('a valid file: places, shapes, metadata, order of the data', async () => {
  const { tensors, metadata } = await read(valid);
  const dataStart = valid.length - 14;
  assert.deepEqual(
    [...tensors.values()],
    [
      { name: 'a', dtype: 'F32', shape: [1, 2], byteLength: 8, offset: dataStart },
      { name: 'b', dtype: 'F16', shape: [3], byteLength: 6, offset: dataStart + 8 },
    ],
  );
  assert.deepEqual([...metadata], [['format', 'pt']]);
});

test('files of 0 to 7 bytes', async () => {
  for (let length = 0; length < 8; length++) await refused(valid.subarray(0, length), 'HeaderTooSmall');
});

test('a header of 0x3C bytes in a file of 8', async () => {
  await refused(Uint8Array.of(0x3c, 0, 0, 0, 0, 0, 0, 0), 'InvalidHeaderLength');
});

test('every truncation point of a valid file', async () => {
  const dataStart = valid.length - 14;
  for (let length = 8; length < dataStart; length++) await refused(valid.slice(0, length), 'InvalidHeaderLength');
  for (let length = dataStart; length < valid.length; length++) {
    const error = await refused(valid.slice(0, length), 'IncompleteBuffer');
    assert.equal(error.offset, length);
  }
});

test('header lengths above 100,000,000 are refused before anything is read', async () => {
  const lengths = [100_000_001n, 0xffffffff0000003cn, 0xffffff000000003cn, 2n ** 53n + 1n, 2n ** 64n - 1n];
  for (const length of lengths) {
    const bytes = fileOf('{}', 0, length);
    const reads: number[] = [];
    const source: ByteSource = byteSource('x', 2 ** 52, async (start, target) => {
      reads.push(target.length);
      target.set(bytes.subarray(start, start + target.length));
    });
    await assert.rejects(readSafeTensorsHeader(source), { code: 'HeaderTooLarge' });
    assert.deepEqual(reads, [8]);
  }
});

test('a header of 100,000,000 bytes is within the limit, and must be in the file', async () => {
  await refused(fileOf('{}', 0, 100_000_000n), 'InvalidHeaderLength');
});

test('bytes that are not UTF-8', async () => {
  for (const bad of ['\xff', '\xc0\xaf', '\xe0\x80\xaf', '\xed\xa0\x80', '\xf4\x90\x80\x80', '\xe2\x82', '\x80']) {
    const error = await refused(fileOf(latin1(`{"${bad}":1}`)), 'InvalidUtf8');
    assert.equal(error.offset, 8 + 2);
  }
  await refused(fileOf(latin1('\xff')), 'InvalidUtf8');
  await refused(fileOf(latin1('\xef\xbb\xbf{}')), 'InvalidUtf8');
});

test('names in UTF-8 of every length', async () => {
  for (const name of ['é', '€', '𝄞', '\u0800', '\u{10ffff}', '\ufeff']) {
    const { tensors } = await read(fileOf(`{"${name}":${entry('U8', '[]', '[0,1]')}}`, 1));
    assert.deepEqual([...tensors.keys()], [name]);
  }
});

test('what is not one JSON object', async () => {
  const texts = ['', '{', '}', '[]', 'null', '"x"', '1', '{}\0\0', '{} {}', '{}x', '{"a"}', '{,}', "{'a':1}"];
  texts.push(`{"w":${entry('U8', '[]', '[0,1]')},}`, '{"\\x":1}', '{"\\u12":1}');
  texts.push('{"a\nb":1}', '{"\\ud800":1}', `{"w":${entry('U8', '[01]', '[0,1]')}}`, '{"w":{"dtype":"F32"', '\u00a0{}');
  for (const text of texts) await refused(fileOf(text, 1), 'NotJsonObject');
});

test('errors carry the byte offset in the file', async () => {
  const error = await refused(fileOf('{"é": ?}'), 'TensorInvalidInfo', 'é');
  assert.equal(error.offset, 8 + utf8('{"é": ').length);
});

test('whitespace around the object is accepted, as the reference does', async () => {
  assert.equal((await read(fileOf('\t\n{}\r '))).tensors.size, 0);
  assert.equal((await read(fileOf('{}'))).tensors.size, 0);
});

test('a repeated key', async () => {
  const twice = `{"w":${entry('U8', '[4]', '[0,4]')},"w":${entry('F32', '[1]', '[0,4]')}}`;
  await refused(fileOf(twice, 4), 'DuplicateKey', 'w');
  const escaped = `{"w":${entry('U8', '[4]', '[0,4]')},"\\u0077":${entry('F32', '[1]', '[0,4]')}}`;
  await refused(fileOf(escaped, 4), 'DuplicateKey', 'w');
  await refused(fileOf('{"__metadata__":{},"__metadata__":{}}'), 'DuplicateKey', '__metadata__');
  await refused(fileOf('{"__metadata__":{"a":"1","a":"2"}}'), 'DuplicateKey', 'a');
  await refused(
    fileOf('{"w":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', 1),
    'DuplicateKey',
    'dtype',
  );
});

test('many tensors over the same bytes', async () => {
  for (const [count, shape, bytes] of [
    [10, '[2,2]', 16],
    [100_000, '[200,200]', 160_000],
  ] as const) {
    const entries = Array.from({ length: count }, (_, i) => `"w${i}":${entry('F32', shape, `[0,${bytes}]`)}`);
    await refused(fileOf(`{${entries}}`, bytes), 'InvalidOffset');
  }
});

test('holes, a late first tensor, bytes of no tensor, missing bytes', async () => {
  const two = (second: string): string => `{"a":${entry('F32', '[4]', '[0,16]')},"b":${entry('F32', '[4]', second)}}`;
  await refused(fileOf(two('[20,36]'), 36), 'InvalidOffset', 'b');
  await refused(fileOf(two('[12,28]'), 28), 'InvalidOffset', 'b');
  await refused(fileOf(oneTensor('F32', '[1]', '[4,8]'), 8), 'InvalidOffset', 'w');
  const polyglot = fileOf(oneTensor('F32', '[1]', '[0,4]'), 4 + 34);
  polyglot.set(utf8('extra_bogus_data_for_polyglot_file'), polyglot.length - 34);
  await refused(polyglot, 'IncompleteBuffer');
  await refused(fileOf(two('[16,32]'), 30), 'IncompleteBuffer');
  await refused(fileOf('{}', 1), 'IncompleteBuffer');
});

test('data_offsets that are no pair of rising integers', async () => {
  const bad = ['[16,0]', '[-1,3]', '[0]', '[]', '[0,1,2]', '["0","16"]', '[0,1e400]', '[0,4.0]', '[-0,4]', '[0,null]'];
  bad.push('{}', '4', 'null', '[0,[4]]', '[0,9007199254740993]', '[18446744073709551616,18446744073709551620]');
  for (const offsets of bad) await refused(fileOf(oneTensor('F32', '[1]', offsets), 4), 'InvalidOffset', 'w');
});

test('bytes that do not fit the shape', async () => {
  await refused(fileOf(oneTensor('I32', '[2,2]', '[0,4]'), 4), 'TensorInvalidInfo', 'w');
  await refused(fileOf(oneTensor('F32', '[1000,1000]', '[0,4]'), 4), 'TensorInvalidInfo', 'w');
  await refused(fileOf(oneTensor('F32', '[0]', '[0,4]'), 4), 'TensorInvalidInfo', 'w');
});

test('tensors without or with other parts', async () => {
  const bad = ['{"dtype":"U8","shape":[1]}', '{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}', '{}', '[]', '1'];
  for (const tensor of bad) await refused(fileOf(`{"w":${tensor}}`, 1), 'TensorInvalidInfo', 'w');
});

test('shapes whose product wraps in 64 bits or is rounded in a double', async () => {
  const shapes = ['[2,18446744073709551614]', '[2,9223372036854775807]', '[4194305,4194305,211106198978564]'];
  shapes.push('[9007199254740993]', '[9007199254740992]', '[4503599627370496]', `[${'9'.repeat(400)}]`);
  for (const shape of shapes) await refused(fileOf(oneTensor('U8', shape, '[0,4]'), 4), 'Overflow', 'w');
});

test('numbers that are no integers as spelled', async () => {
  for (const size of ['2.0', '1e3', '2E0', '-0', '-1', '"2"', 'true', 'null', '[2]', '{}', 'NaN', '+2', '2,']) {
    await refused(fileOf(oneTensor('U8', `[${size}]`, '[0,2]'), 2), 'NotInteger', 'w');
  }
});

test('unknown dtypes, and values that end within a byte', async () => {
  for (const dtype of ['F31', 'f32', '', 'toString', '__proto__']) {
    await refused(fileOf(oneTensor(dtype, '[1]', '[0,4]'), 4), 'UnknownDtype', 'w');
  }
  await refused(fileOf('{"w":{"dtype":5,"shape":[1],"data_offsets":[0,1]}}', 1), 'UnknownDtype', 'w');
  await refused(fileOf(oneTensor('F4', '[3]', '[0,2]'), 2), 'Misaligned', 'w');
  await refused(fileOf(oneTensor('F6_E2M3', '[2]', '[0,2]'), 2), 'Misaligned', 'w');
});

test('every dtype of the format', async () => {
  for (const [dtype, bits] of Object.entries(dtypeBits)) {
    const { tensors } = await read(fileOf(oneTensor(dtype, '[2,4]', `[0,${bits}]`), bits));
    assert.equal(tensors.get('w')?.byteLength, bits);
  }
});

test('empty tensors and scalars', async () => {
  const header = `{"full":${entry('F32', '[2]', '[0,8]')},"empty":${entry('F32', '[2,0]', '[0,0]')},
    "scalar":${entry('U8', '[]', '[8,9]')},"end":${entry('I64', '[0]', '[9,9]')}}`;
  const { tensors } = await read(fileOf(header, 9));
  assert.deepEqual(
    [...tensors.values()].map(({ name, shape, byteLength }) => [name, shape, byteLength]),
    [
      ['empty', [2, 0], 0],
      ['full', [2], 8],
      ['scalar', [], 1],
      ['end', [0], 0],
    ],
  );
  await refused(fileOf(oneTensor('F32', '[0]', '[4,4]'), 0), 'InvalidOffset', 'w');
});

test('names are only names', async () => {
  const long = 'n'.repeat(1_000_000);
  const names = ['__proto__', 'constructor', '../../x', 'C:\\x', '', 'a"b', '\u0000', long];
  const header = encodeSafeTensorsHeader(names.map((name) => ({ name, dtype: 'U8', shape: [] as number[] })));
  const bytes = new Uint8Array(header.fileBytes);
  bytes.set(header.bytes);
  const { tensors } = await read(bytes);
  assert.deepEqual([...tensors.keys()], names);
  assert.equal(({} as Record<string, unknown>).dtype, undefined);
});

test('a long name does not make a long message', async () => {
  const long = 'n'.repeat(1_000_000);
  const error = await refused(fileOf(`{"${long}":${entry('F32', '[1]', '[0,5]')}}`, 5), 'TensorInvalidInfo', long);
  assert.ok(error.message.length < 1000);
});

test('metadata that is no object of texts', async () => {
  for (const metadata of ['1', '[]', 'null', '"x"', '{"a":1}', '{"a":null}', '{"a":{}}']) {
    await refused(fileOf(`{"__metadata__":${metadata}}`), 'InvalidMetadata');
  }
  const { metadata } = await read(fileOf('{"__metadata__":{"__proto__":"x","":"\\u20ac\\ud834\\udd1e"}}'));
  assert.deepEqual(
    [...metadata],
    [
      ['__proto__', 'x'],
      ['', '€𝄞'],
    ],
  );
});

test('every one-byte change of a file loads or is a FormatError', async () => {
  let loaded = 0;
  for (let at = 0; at < valid.length; at++) {
    for (let flip = 1; flip < 256; flip++) {
      const bytes = valid.slice();
      bytes[at]! ^= flip;
      try {
        const { tensors } = await read(bytes);
        for (const tensor of tensors.values()) assert.equal(tensorBytes(tensor.dtype, tensor.shape), tensor.byteLength);
        loaded++;
      } catch (error) {
        assert.ok(error instanceof FormatError, `byte ${at} ^ ${flip}: ${error}`);
      }
    }
  }
  assert.ok(loaded >= 14 * 255, 'changes of the data load');
});

test('the writer refuses what the reader would', () => {
  const u8 = (name: string) => ({ name, dtype: 'U8' as const, shape: [1] });
  assert.throws(() => encodeSafeTensorsHeader([u8('a'), u8('a')]), RangeError);
  assert.throws(() => encodeSafeTensorsHeader([u8('__metadata__')]), RangeError);
  assert.throws(() => encodeSafeTensorsHeader([{ name: 'a', dtype: 'F4', shape: [3] }]), RangeError);
});
