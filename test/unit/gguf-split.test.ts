/** GGUF models in parts, and views that show a file's rows in another order. */
import assert from 'node:assert/strict';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { FormatError } from '../../src/errors.ts';
import { fetchFolder } from '../../src/formats/adapters/fetch.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { memoryFolder, memorySource } from '../../src/formats/bytes.ts';
import { type CheckpointTensor, checkpointTensor } from '../../src/formats/checkpoint.ts';
import { firstPart, openGguf } from '../../src/formats/gguf.ts';
import { encodeGgufHeader } from '../../src/formats/gguf-encode.ts';
import type { GgufValue } from '../../src/formats/gguf-types.ts';
import { viewTensor } from '../../src/formats/views.ts';

const name = (part: number, of = 2): string => `m-0000${part}-of-0000${of}.gguf`;

/** One tensor of four bytes and the keys of a part. */
function part(no: number | undefined, tensor: string, { count = 2, tensors = 2 } = {}): Uint8Array {
  const metadata = new Map<string, GgufValue>([['general.name', { type: 'string', value: `part of ${tensor}` }]]);
  if (no !== undefined) {
    metadata.set('split.no', { type: 'uint16', value: no });
    metadata.set('split.count', { type: 'uint16', value: count });
    metadata.set('split.tensors.count', { type: 'int32', value: tensors });
  }
  const header = encodeGgufHeader([{ name: tensor, dtype: 'I8', shape: [4] }], metadata);
  const bytes = new Uint8Array(header.fileBytes).fill(no ?? 9);
  bytes.set(header.bytes);
  return bytes;
}

const folder = (files: Record<string, Uint8Array>) => memoryFolder('f', new Map(Object.entries(files)));

test('parts make one model, opened by the name of any of them', async () => {
  const files = folder({ [name(1)]: part(0, 'a'), [name(2)]: part(1, 'b') });
  for (const file of [name(1), name(2)]) {
    const model = await openGguf(files, file);
    assert.deepEqual(model.files, [name(1), name(2)]);
    assert.equal(model.metadata.get('general.name')?.value, 'part of a');
    const bytes = new Uint8Array(4);
    await model.tensors.get('b')!.readInto(0, bytes);
    assert.deepEqual([...bytes], [1, 1, 1, 1]);
    await model.close();
  }
  assert.equal(firstPart(name(2)), name(1));
  assert.equal(firstPart('plain.gguf'), 'plain.gguf');
});

test('a file that was joined from parts says 0 parts', async () => {
  const model = await openGguf(folder({ 'm.gguf': part(0, 'a', { count: 0, tensors: 1 }) }), 'm.gguf');
  assert.equal(model.tensors.size, 1);
});

test('parts that are missing or belong to another model', async () => {
  const cases: [Record<string, Uint8Array>, string][] = [
    [{ [name(1)]: part(0, 'a') }, 'MissingShard'],
    [{ [name(1)]: part(0, 'a'), [name(2)]: part(0, 'b') }, 'InvalidSplit'],
    [{ [name(1)]: part(0, 'a'), [name(2)]: part(1, 'b', { count: 3 }) }, 'InvalidSplit'],
    [{ [name(1)]: part(0, 'a'), [name(2)]: part(undefined, 'b') }, 'InvalidSplit'],
    [{ [name(1)]: part(0, 'a'), [name(2)]: part(1, 'a') }, 'DuplicateTensor'],
    [{ [name(1)]: part(0, 'a', { tensors: 3 }), [name(2)]: part(1, 'b', { tensors: 3 }) }, 'InvalidSplit'],
  ];
  for (const [files, code] of cases) {
    await assert.rejects(openGguf(folder(files), name(1)), (error) => {
      assert.ok(error instanceof FormatError);
      assert.equal(error.code, code, error.message);
      return true;
    });
  }
  await assert.rejects(openGguf(folder({}), 'm-00001-of-00000.gguf'), { code: 'InvalidSplit' });
  await assert.rejects(openGguf(folder({}), 'm.gguf'), { code: 'NoCheckpoint' });
  await assert.rejects(openGguf(folder({ 'm.gguf': part(0, 'a') }), 'm.gguf'), { code: 'InvalidSplit' });
});

test('tensors beyond 4 GiB of a file on disk', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'lanewise-sparse-'));
  try {
    const size = 2 ** 31 + 5;
    const tensors = ['a', 'b', 'c'].map((name) => ({ name, dtype: 'I8' as const, shape: [size] }));
    const header = encodeGgufHeader(tensors, new Map());
    const file = await open(join(scratch, 'm.gguf'), 'w');
    await file.truncate(header.fileBytes);
    await file.write(header.bytes, 0, header.bytes.length, 0);
    const last = header.tensors[2]!;
    await file.write(Uint8Array.of(1, 2, 3), 0, 3, last.offset + size - 3);
    await file.close();
    const model = await openGguf(nodeFolder(scratch), 'm.gguf');
    const bytes = new Uint8Array(4);
    await model.tensors.get('c')!.readInto(size - 4, bytes);
    assert.deepEqual([...bytes], [0, 1, 2, 3]);
    await model.close();
  } finally {
    await rm(scratch, { recursive: true });
  }
});

test('a model behind an address is read by ranges', async () => {
  const bytes = part(undefined, 'a');
  const ranges: string[] = [];
  const server = createServer((request, response) => {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!;
    ranges.push(request.url!);
    const piece = bytes.subarray(Number(from), Number(to) + 1);
    response.writeHead(206, { 'content-range': `bytes ${from}-${Number(from) + piece.length - 1}/${bytes.length}` });
    response.end(piece);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const model = await openGguf(fetchFolder(`http://127.0.0.1:${port}/models`), 'm.gguf');
    const found = new Uint8Array(4);
    await model.tensors.get('a')!.readInto(0, found);
    assert.deepEqual([...found], [9, 9, 9, 9]);
    assert.ok(ranges.length <= 4 && ranges.every((url) => url === '/models/m.gguf'), `${ranges}`);
    await model.close();
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

/** A tensor [rows, 3] whose bytes are its row's number. */
function rowsTensor(rows: number): CheckpointTensor {
  const bytes = Uint8Array.from({ length: rows * 3 }, (_, i) => Math.floor(i / 3));
  const place = { name: 'w', dtype: 'I8', shape: [rows, 3], byteLength: bytes.length, offset: 0 } as const;
  return checkpointTensor(place, 'f', memorySource('f', bytes));
}

/** The view's bytes, whole and in every range. */
async function viewed(tensor: CheckpointTensor): Promise<number[]> {
  const whole = new Uint8Array(tensor.byteLength);
  await tensor.readInto(0, whole);
  for (let start = 0; start < whole.length; start++) {
    for (let end = start; end <= whole.length; end++) {
      const some = new Uint8Array(end - start);
      await tensor.readInto(start, some);
      assert.deepEqual(some, whole.subarray(start, end), `${start} to ${end}`);
    }
  }
  return Array.from({ length: whole.length / 3 }, (_, row) => {
    assert.equal(new Set(whole.subarray(3 * row, 3 * row + 3)).size, 1, 'rows stay whole');
    return whole[3 * row]!;
  });
}

test('views: some rows, single rows in another order, runs of rows in another order', async () => {
  const tensor = rowsTensor(12);
  const view = (shape: number[], firstRow: number, rows?: { run: number; order: number[] }): CheckpointTensor =>
    viewTensor('v', tensor, { source: 'w', shape, firstRow, rows });
  assert.deepEqual(await viewed(view([4, 3], 8)), [8, 9, 10, 11]);
  assert.deepEqual(
    await viewed(view([12, 3], 0, { run: 1, order: [0, 2, 1, 3] })),
    [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11],
  );
  assert.deepEqual(
    await viewed(view([12, 3], 0, { run: 2, order: [2, 0, 1] })),
    [4, 5, 0, 1, 2, 3, 10, 11, 6, 7, 8, 9],
  );
  assert.deepEqual(await viewed(view([4, 3], 4, { run: 1, order: [1, 0] })), [5, 4, 7, 6]);
  const vector = { ...tensor, shape: [6], byteLength: 6 };
  const bias = viewTensor('b', vector, {
    source: 'w',
    shape: [6],
    firstRow: 0,
    rows: { run: 1, order: [2, 5, 0, 1, 3, 4] },
  });
  const values = new Uint8Array(6);
  await bias.readInto(0, values);
  assert.deepEqual([...values], [0, 1, 0, 0, 1, 1], 'values of a vector are rows');
  await assert.rejects(view([4, 3], 8).readInto(0, new Uint8Array(13)), { code: 'OutOfTensor' });
});
