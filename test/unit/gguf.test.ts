/** The GGUF header, with valid and hostile inputs. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { FormatError } from '../../src/errors.ts';
import { byteSource, memorySource } from '../../src/formats/bytes.ts';
import { encodeGgufHeader } from '../../src/formats/gguf-encode.ts';
import { GGUF_COUNT_LIMIT, type GgufHeader, readGgufHeader } from '../../src/formats/gguf-header.ts';
import { type GgufMetadata, type GgufValue, ggmlBytes, ggmlTypes } from '../../src/formats/gguf-types.ts';
import { storageLayout } from '../../src/quant/storage.ts';
import { Bytes, entry, type FileSpec, ggufFile, type TensorSpec, textEntry, u32Entry } from './gguf-build.ts';

const read = (bytes: Uint8Array): Promise<GgufHeader> => readGgufHeader(memorySource('x.gguf', bytes));

/** Reading must end in a FormatError of this code, about this key, naming the file and a place in it. */
async function refused(bytes: Uint8Array, code: string, key?: string): Promise<FormatError> {
  try {
    await read(bytes);
  } catch (error) {
    assert.ok(error instanceof FormatError, `a FormatError, not ${error}`);
    assert.equal(error.code, code, error.message);
    assert.equal(error.file, 'x.gguf');
    assert.ok(error.offset! >= 0 && error.offset! <= bytes.length, error.message);
    if (key !== undefined) assert.equal(error.key, key);
    assert.ok(!error.message.includes('\n'), 'one line');
    return error;
  }
  assert.fail(`read without ${code}`);
}
const refusedFile = (spec: FileSpec, code: string, key?: string): Promise<FormatError> =>
  refused(ggufFile(spec), code, key);
const refusedTensor = (tensor: TensorSpec, code: string, dataBytes = 32): Promise<FormatError> =>
  refusedFile({ tensors: [tensor], dataBytes }, code);

const u8 = entry('u8', 0, new Bytes().raw([200]));
const nan = entry('nan', 6, new Bytes().f32(Number.NaN));
const list = entry(
  'list',
  9,
  new Bytes()
    .u32(5)
    .u64(2)
    .u32(7)
    .u32(2 ** 32 - 1),
);
const words = entry('words', 9, new Bytes().u32(8).u64(2).text('a').text('né'));
const flags = entry('flags', 9, new Bytes().u32(7).u64(2).raw([1, 0]));
const huge = entry('huge', 10, new Bytes().u64(2n ** 64n - 1n));
const valid = ggufFile({
  entries: [textEntry('general.architecture', 'llama'), u8, nan, list, words, flags, huge],
  tensors: [
    { name: 'a', dims: [4, 3], offset: 0 },
    { name: 'b', dims: [32], type: 8, offset: 64 },
    { name: 'c', dims: [], type: 24, offset: 128 },
  ],
  dataBytes: 129,
});

test('a valid file: values with their types, shapes outermost first, places', async () => {
  const { version, metadata, tensors } = await read(valid);
  assert.equal(version, 3);
  assert.deepEqual(
    [...metadata],
    [
      ['general.architecture', { type: 'string', value: 'llama' }],
      ['u8', { type: 'uint8', value: 200 }],
      ['nan', { type: 'float32', value: Number.NaN }],
      ['list', { type: 'array', of: 'int32', value: Int32Array.of(7, -1) }],
      ['words', { type: 'array', of: 'string', value: ['a', 'né'] }],
      ['flags', { type: 'array', of: 'bool', value: [true, false] }],
      ['huge', { type: 'uint64', value: 2n ** 64n - 1n }],
    ],
  );
  const start = valid.length - 129;
  assert.deepEqual(
    [...tensors.values()],
    [
      { name: 'a', dtype: 'F32', shape: [3, 4], byteLength: 48, offset: start },
      { name: 'b', dtype: 'Q8_0', shape: [32], byteLength: 34, offset: start + 64 },
      { name: 'c', dtype: 'I8', shape: [], byteLength: 1, offset: start + 128 },
    ],
  );
});

test('other files, versions and byte orders have different errors', async () => {
  const messages = [
    await refusedFile({ magic: 'FUGG' }, 'NotGguf'),
    ...(await Promise.all([0, 1, 4, 0x03000000].map((version) => refusedFile({ version }, 'UnsupportedVersion')))),
  ].map(({ message }) => message);
  assert.equal(new Set(messages).size, 5);
  assert.match(messages[4]!, /big-endian/);
  assert.equal((await read(ggufFile({ version: 2 }))).version, 2);
});

test('a file cut anywhere is refused', async () => {
  for (let end = 0; end < valid.length; end++) {
    await assert.rejects(read(valid.subarray(0, end)), { name: 'FormatError' }, `cut at ${end}`);
  }
});

test('counts that the file cannot hold', async () => {
  for (const count of [2n ** 64n - 1n, 2n ** 32n, 2n ** 53n + 1n]) {
    await refusedFile({ tensorCount: count }, 'InvalidLength');
    await refusedFile({ keyCount: count }, 'InvalidLength');
  }
});

/** A header of many keys or tensors, quickly made. */
const many = (keys: number, tensors: number): Uint8Array => {
  const metadata: GgufMetadata = new Map(
    Array.from({ length: keys }, (_, i) => [`k${i}`, { type: 'uint8', value: 1 }]),
  );
  const shapes = Array.from({ length: tensors }, (_, i) => ({ name: `t${i}`, dtype: 'I8' as const, shape: [0] }));
  return encodeGgufHeader(shapes, metadata).bytes;
};

test('a million keys and many tensors are read, more than the limit refused', async () => {
  assert.equal((await read(many(1_000_000, 0))).metadata.size, 1_000_000);
  assert.equal((await read(many(0, 100_000))).tensors.size, 100_000);
  await refusedFile({ keyCount: GGUF_COUNT_LIMIT + 1, dataBytes: 15 * GGUF_COUNT_LIMIT }, 'TooMany');
});

test('texts longer than the file', async () => {
  for (const length of [2n ** 64n - 1n, 2n ** 30n + 1n, 18]) {
    await refusedFile({ entries: [new Bytes().text('abcdefghijklmnop', length)] }, 'InvalidLength');
    const value = entry('key', 8, new Bytes().text('abcde', length));
    await refusedFile({ entries: [value] }, 'InvalidLength', 'key');
  }
});

test('keys that are empty, not UTF-8 or named like parts of an object', async () => {
  await refusedFile({ entries: [u32Entry('', 1)] }, 'EmptyName');
  await refusedFile({ entries: [new Bytes().text(Uint8Array.of(0x61, 0xff)).u32(0).raw([1])] }, 'InvalidUtf8');
  await refusedFile({ entries: [entry('key', 8, new Bytes().text(Uint8Array.of(0xc0, 0x80)))] }, 'InvalidUtf8', 'key');
  const { metadata } = await read(ggufFile({ entries: [u32Entry('__proto__', 7)] }));
  assert.deepEqual(metadata.get('__proto__'), { type: 'uint32', value: 7 });
});

test('names twice, names too long', async () => {
  await refusedFile({ entries: [u32Entry('a', 1), textEntry('a', 'x')] }, 'DuplicateKey', 'a');
  await refusedFile({ tensors: [{ name: 'w' }, { name: 'w', offset: 32 }], dataBytes: 64 }, 'DuplicateTensor', 'w');
  await refusedTensor({ name: 'n'.repeat(64) }, 'NameTooLong');
  await refusedTensor({ name: 'é'.repeat(32) }, 'NameTooLong');
  await refusedTensor({ name: '' }, 'EmptyName');
  assert.equal((await read(ggufFile({ tensors: [{ name: 'n'.repeat(63) }], dataBytes: 32 }))).tensors.size, 1);
});

test('value types that do not exist, arrays of arrays however deep', async () => {
  for (const type of [13, 2 ** 32 - 1]) {
    await refusedFile({ entries: [entry('key', type, new Bytes().u64(0))] }, 'UnknownValueType', 'key');
    await refusedFile({ entries: [entry('key', 9, new Bytes().u32(type).u64(0))] }, 'UnknownValueType', 'key');
  }
  const deep = new Bytes();
  for (let i = 0; i < 10_000; i++) deep.u32(9).u64(1);
  await refusedFile({ entries: [entry('key', 9, deep)] }, 'NestedArray', 'key');
  await refusedFile({ entries: [entry('key', 7, new Bytes().raw([2]))] }, 'InvalidBool', 'key');
});

test('arrays that the file cannot hold', async () => {
  for (const count of [2n ** 30n + 1n, 2n ** 64n - 1n, 3]) {
    await refusedFile({ entries: [entry('key', 9, new Bytes().u32(10).u64(count).u64(1))] }, 'InvalidLength', 'key');
    await refusedFile({ entries: [entry('key', 9, new Bytes().u32(8).u64(count).text(''))] }, 'InvalidLength', 'key');
  }
});

test('a vocabulary of 262144 tokens is read piece by piece', async () => {
  const tokens = Array.from({ length: 262_144 }, (_, i) => `▁token${i}`);
  const { bytes } = encodeGgufHeader([], new Map([['tokens', { type: 'array', of: 'string', value: tokens }]]));
  const memory = memorySource('x.gguf', bytes);
  let largest = 0;
  const counted = byteSource('x.gguf', bytes.length, (start, target) => {
    largest = Math.max(largest, target.length);
    return memory.readInto(start, target);
  });
  const { metadata } = await readGgufHeader(counted);
  assert.deepEqual(metadata.get('tokens')?.value, tokens);
  assert.ok(largest <= bytes.length);
});

test('alignments', async () => {
  for (const alignment of [13, 0, 2 ** 32 - 1]) {
    await refusedFile({ entries: [u32Entry('general.alignment', alignment)] }, 'InvalidAlignment', 'general.alignment');
  }
  const signed = entry('general.alignment', 5, new Bytes().u32(32));
  await refusedFile({ entries: [signed] }, 'InvalidAlignment', 'general.alignment');
  const wide = ggufFile({
    entries: [u32Entry('general.alignment', 128)],
    tensors: [{ name: 'a' }, { name: 'b', offset: 128 }],
    alignment: 128,
    dataBytes: 160,
  });
  assert.deepEqual(
    [...(await read(wide)).tensors.values()].map(({ offset }) => offset),
    [wide.length - 160, wide.length - 32],
  );
});

test('shapes', async () => {
  await refusedTensor({ dims: [1, 1, 1, 1, 1] }, 'InvalidShape');
  await refusedTensor({ dims: [], dimensions: 2 ** 32 - 1 }, 'InvalidShape');
  await refusedTensor({ dims: [2n ** 64n - 1n] }, 'Overflow');
  await refusedTensor({ dims: [2n ** 63n - 1n, 2], type: 24 }, 'Overflow');
  await refusedTensor({ dims: [2n ** 42n + 1n] }, 'OutOfFile');
  await refusedTensor({ dims: [4, 1073741823, 1073741825] }, 'Overflow');
  const vast = 0x7fffffffffffffc0n;
  await refusedFile(
    {
      tensors: [
        { name: 'a', dims: [vast], type: 24 },
        { name: 'b', dims: [vast], type: 24, offset: vast },
      ],
      dataBytes: 64,
    },
    'Overflow',
  );
  const empty = await read(ggufFile({ tensors: [{ dims: [4, 0] }], dataBytes: 0 }));
  assert.deepEqual([empty.tensors.get('w')?.shape, empty.tensors.get('w')?.byteLength], [[0, 4], 0]);
});

test('tensor types that do not exist or were removed, rows that are not whole blocks', async () => {
  for (const type of [41, 2 ** 32 - 1, 4, 5, 31, 32, 33, 36, 37, 38]) await refusedTensor({ type }, 'UnsupportedType');
  await refusedTensor({ type: ggmlTypes.Q4_K.id, dims: [255] }, 'BadRow');
  await refusedTensor({ type: ggmlTypes.Q8_0.id, dims: [16, 2] }, 'BadRow');
});

test('offsets that are far out, unaligned, with a gap, over another tensor; data one byte short', async () => {
  for (const offset of [2n ** 64n - 1n, 4, 32]) await refusedTensor({ offset }, 'InvalidOffset', 64);
  const two = (offset: number): FileSpec => ({ tensors: [{ name: 'a' }, { name: 'b', offset }], dataBytes: 96 });
  for (const offset of [0, 16, 64]) await refusedFile(two(offset), 'InvalidOffset', 'b');
  assert.equal((await read(ggufFile(two(32)))).tensors.size, 2);
  await refusedTensor({}, 'OutOfFile', 31);
});

test('places beyond 4 GiB are exact', async () => {
  const tensors = Array.from({ length: 3 }, (_, i) => ({ name: `t${i}`, dtype: 'I8' as const, shape: [2 ** 31 + 5] }));
  const { bytes, tensors: placed, fileBytes } = encodeGgufHeader(tensors, new Map());
  const source = byteSource('x.gguf', fileBytes, async (start, target) => {
    target.set(bytes.subarray(start, start + target.length));
  });
  const header = await readGgufHeader(source);
  assert.deepEqual([...header.tensors.values()], placed);
  assert.equal(placed[2]!.offset - placed[0]!.offset, 2 * (2 ** 31 + 32));
});

test('no change of one byte does more harm than an error', async () => {
  const bytes = valid.slice();
  for (let i = 0; i < bytes.length - 129; i++) {
    for (const flipped of [bytes[i]! ^ 1, bytes[i]! ^ 0x80, 0, 255]) {
      const before = bytes[i]!;
      bytes[i] = flipped;
      await read(bytes).catch((error) => assert.ok(error instanceof FormatError, `byte ${i} = ${flipped}: ${error}`));
      bytes[i] = before;
    }
  }
});

test('what the writer writes, the reader reads: every type of value and of tensor', async () => {
  const metadata = new Map<string, GgufValue>([
    ['u8', { type: 'uint8', value: 255 }],
    ['i8', { type: 'int8', value: -1 }],
    ['u16', { type: 'uint16', value: 65535 }],
    ['i16', { type: 'int16', value: -32768 }],
    ['u32', { type: 'uint32', value: 2 ** 32 - 1 }],
    ['i32', { type: 'int32', value: -(2 ** 31) }],
    ['f32', { type: 'float32', value: 0.5 }],
    ['bool', { type: 'bool', value: true }],
    ['text', { type: 'string', value: '▁é' }],
    ['u64', { type: 'uint64', value: 2n ** 63n + 1n }],
    ['i64', { type: 'int64', value: -(2 ** 53) }],
    ['f64', { type: 'float64', value: 0.1 }],
    ['texts', { type: 'array', of: 'string', value: ['', 'a'] }],
    ['bools', { type: 'array', of: 'bool', value: [true, false] }],
    ['floats', { type: 'array', of: 'float32', value: Float32Array.of(1, -2) }],
    ['longs', { type: 'array', of: 'uint64', value: BigUint64Array.of(2n ** 60n) }],
  ]);
  const tensors = Object.entries(ggmlTypes).map(([name, { block }]) => {
    const dtype = name as keyof typeof ggmlTypes;
    return { name: `blk.0.${name}`, dtype, shape: [3, 2 * block] };
  });
  const { bytes, tensors: placed, fileBytes } = encodeGgufHeader(tensors, metadata);
  const file = new Uint8Array(fileBytes);
  file.set(bytes);
  const header = await read(file);
  assert.deepEqual(header.metadata, metadata);
  assert.deepEqual([...header.tensors.values()], placed);
  for (const { dtype, shape, byteLength } of header.tensors.values()) assert.equal(byteLength, ggmlBytes(dtype, shape));
});

test('storage formats have the blocks of the tensor types of their names', () => {
  for (const [name, { block, bytes }] of Object.entries(storageLayout)) {
    const type = ggmlTypes[name.toUpperCase() as keyof typeof ggmlTypes];
    assert.deepEqual({ block: type.block, bytes: type.bytes }, { block, bytes }, name);
  }
});
