/** Finding the files of a model, and invalid indices. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { FormatError } from '../../src/errors.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { type FileFolder, memoryFolder } from '../../src/formats/bytes.ts';
import { openCheckpoint, readJson } from '../../src/formats/checkpoint.ts';
import { encodeSafeTensorsHeader } from '../../src/formats/safetensors.ts';

/** A file of one-byte tensors that hold 1, 2, 3, ... */
function shard(...names: string[]): Uint8Array {
  const header = encodeSafeTensorsHeader(names.map((name) => ({ name, dtype: 'U8', shape: [1] })));
  return Uint8Array.from([...header.bytes, ...names.map((_, i) => i + 1)]);
}

const json = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
const INDEX = 'model.safetensors.index.json';
const A = 'model-1.safetensors';
const B = 'model-2.safetensors';

/** A folder that counts its open files. */
function folderOf(files: Record<string, Uint8Array>): FileFolder & { open: FileFolder['open']; opened(): number } {
  const inner = memoryFolder('folder', new Map(Object.entries(files)));
  let count = 0;
  return {
    ...inner,
    opened: () => count,
    async open(name) {
      const source = await inner.open(name);
      if (!source) return undefined;
      count++;
      return { ...source, dispose: async () => void count-- };
    },
  };
}

/** Opening must end in a FormatError of this code that names all of `names`, with every file closed. */
async function refused(files: Record<string, Uint8Array>, code: string, names: string[], file?: string): Promise<void> {
  const folder = folderOf(files);
  await assert.rejects(openCheckpoint(folder, file), (error) => {
    assert.ok(error instanceof FormatError, `a FormatError, not ${error}`);
    assert.equal(error.code, code, error.message);
    for (const name of names) assert.ok(error.message.includes(name), `${error.message} names ${name}`);
    return true;
  });
  assert.equal(folder.opened(), 0, 'all files closed');
}

test('golden shards are one map of tensors', async () => {
  const checkpoint = await openCheckpoint(nodeFolder('test/golden/models/llama-sharded'));
  assert.equal(checkpoint.tensors.size, 30);
  assert.equal(checkpoint.files.length, 3);
  assert.deepEqual(checkpoint.warnings, []);
  assert.equal(checkpoint.metadata.get('format'), 'pt');
  assert.equal(checkpoint.tensors.get('lm_head.weight')?.file, 'model-00001-of-00003.safetensors');
  await checkpoint.close();
});

test('model.safetensors comes before an index, an index before a lone file', async () => {
  const index = json({ weight_map: { b: B } });
  const files = {
    'model.safetensors': shard('single'),
    [INDEX]: index,
    [B]: shard('b'),
    'other.safetensors': shard('c'),
  };
  const names = async (folder: FileFolder, file?: string) => [...(await openCheckpoint(folder, file)).tensors.keys()];
  assert.deepEqual(await names(folderOf(files)), ['single']);
  assert.deepEqual(await names(folderOf(files), 'other.safetensors'), ['c']);
  assert.deepEqual(await names(folderOf(files), INDEX), ['b']);
  assert.deepEqual(await names(folderOf({ [INDEX]: index, [B]: shard('b') })), ['b']);
  assert.deepEqual(await names(folderOf({ 'lone.safetensors': shard('c'), 'x.txt': json(1) })), ['c']);
});

test('no file, several files, a named file that is not there', async () => {
  await refused({ 'config.json': json({}) }, 'NoCheckpoint', ['folder', 'model.safetensors']);
  await refused({ [A]: shard('a'), [B]: shard('b') }, 'AmbiguousCheckpoint', [A, B]);
  await refused({}, 'NoCheckpoint', ['x.safetensors'], 'x.safetensors');
  await refused({}, 'UnsafeFileName', ['../x.safetensors'], '../x.safetensors');
});

test('tensors are read from their own shard, within their own bytes', async () => {
  const files = { [INDEX]: json({ weight_map: { a: A, b: B, c: B } }), [A]: shard('a'), [B]: shard('b', 'c') };
  const folder = folderOf(files);
  const checkpoint = await openCheckpoint(folder);
  const target = new Uint8Array(new SharedArrayBuffer(1));
  await checkpoint.tensors.get('c')!.readInto(0, target);
  assert.equal(target[0], 2);
  for (const [start, length] of [
    [0, 2],
    [1, 1],
    [-1, 1],
    [0.5, 0],
  ] as const) {
    await assert.rejects(checkpoint.tensors.get('b')!.readInto(start, new Uint8Array(length)), { code: 'OutOfTensor' });
  }
  assert.equal(folder.opened(), 2);
  await checkpoint.close();
  assert.equal(folder.opened(), 0);
});

test('shard names with path parts, of other kinds, or no texts', async () => {
  const unsafe = ['../evil.safetensors', '/abs.safetensors', 'https://h/x.safetensors', 'a/b.safetensors', '..', ''];
  unsafe.push(
    'C:\\x.safetensors',
    '\\\\host\\s.safetensors',
    'C:x.safetensors',
    'a\0.safetensors',
    'pytorch_model.bin',
  );
  for (const name of unsafe) {
    await refused({ [INDEX]: json({ weight_map: { w: name } }) }, 'UnsafeFileName', [`folder/${INDEX}`, '"w"']);
  }
  for (const weightMap of [null, [], 'x', undefined]) {
    await refused({ [INDEX]: json({ weight_map: weightMap }) }, 'InvalidIndex', [INDEX]);
  }
  await refused({ [INDEX]: json({ weight_map: { w: 1 } }) }, 'InvalidIndex', [INDEX, '"w"']);
  await refused({ [INDEX]: json([]) }, 'InvalidIndex', [INDEX]);
  await refused({ [INDEX]: new TextEncoder().encode('{"weight_map"') }, 'InvalidJson', [INDEX, 'byte 13']);
});

test('a shard that is missing', async () => {
  await refused({ [INDEX]: json({ weight_map: { a: A, b: B } }), [A]: shard('a') }, 'MissingShard', [B, INDEX]);
});

test('a tensor that is in no shard, in two, in another, or in none of the list', async () => {
  const index = json({ weight_map: { a: A, b: B } });
  await refused({ [INDEX]: index, [A]: shard('a'), [B]: shard() }, 'MissingTensor', [INDEX, B, '"b"']);
  await refused({ [INDEX]: index, [A]: shard('a'), [B]: shard('b', 'a') }, 'DuplicateTensor', [A, B, '"a"']);
  await refused({ [INDEX]: index, [A]: shard('b'), [B]: shard('a') }, 'UnlistedTensor', [A, B, INDEX, '"b"']);
  await refused({ [INDEX]: index, [A]: shard('a', 'x'), [B]: shard('b') }, 'UnlistedTensor', [A, INDEX, '"x"']);
});

test('a broken shard names itself', async () => {
  const files = { [INDEX]: json({ weight_map: { a: A, b: B } }), [A]: shard('a'), [B]: shard('b').slice(0, 20) };
  await refused(files, 'InvalidHeaderLength', [B]);
});

test('tensors named like parts of objects', async () => {
  const map = '{"weight_map":{"__proto__":"model-1.safetensors","constructor":"model-1.safetensors"}}';
  const files = { [INDEX]: new TextEncoder().encode(map), [A]: shard('__proto__', 'constructor') };
  const checkpoint = await openCheckpoint(folderOf(files));
  assert.deepEqual([...checkpoint.tensors.keys()], ['__proto__', 'constructor']);
});

test('a wrong total_size is a warning', async () => {
  const files = { [INDEX]: json({ metadata: { total_size: 5 }, weight_map: { a: A } }), [A]: shard('a') };
  const { warnings } = await openCheckpoint(folderOf(files));
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /total_size .* 5, .* 1 bytes/);
});

test('JSON files: the value, no file, the place of a mistake, too large, not UTF-8', async () => {
  const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
  const folder = memoryFolder(
    'folder',
    new Map([
      ['good.json', utf8('{"a": [1.5e3, "é", null, {"b": true}]}')],
      ['cut.json', utf8('{"é": [1, 2')],
      ['comma.json', utf8('{"a": 1,\n "b": tru}')],
      ['empty.json', utf8('')],
      ['twice.json', utf8('1 2')],
      ['latin1.json', Uint8Array.of(0x22, 0xe9, 0x22)],
      ['deep.json', utf8('['.repeat(200_000))],
    ]),
  );
  assert.deepEqual(await readJson(folder, 'good.json'), { a: [1500, 'é', null, { b: true }] });
  assert.equal(await readJson(folder, 'none.json'), undefined);
  const mistake = (code: string, file: string, offset?: number) => ({ name: 'FormatError', code, file, offset });
  await assert.rejects(readJson(folder, 'cut.json'), mistake('InvalidJson', 'folder/cut.json', 12));
  await assert.rejects(readJson(folder, 'comma.json'), mistake('InvalidJson', 'folder/comma.json', 15));
  await assert.rejects(readJson(folder, 'empty.json'), mistake('InvalidJson', 'folder/empty.json', 0));
  await assert.rejects(readJson(folder, 'twice.json'), mistake('InvalidJson', 'folder/twice.json', 2));
  await assert.rejects(readJson(folder, 'latin1.json'), mistake('InvalidUtf8', 'folder/latin1.json', 1));
  await assert.rejects(readJson(folder, 'deep.json'), { name: 'FormatError', code: 'InvalidJson' });
  await assert.rejects(readJson(folder, 'good.json', 10), { name: 'FormatError', code: 'TooLarge' });
});

test('numbers that Python writes and JSON does not have, outside of strings only', async () => {
  const text = '{"limit": [0.0, Infinity, -Infinity], "eps": NaN, "name": "NaN, Infinity \\" -Infinity", "n": 1}';
  const files = new Map([
    ['config.json', new TextEncoder().encode(text)],
    ['cut.json', new TextEncoder().encode('{"limit": Infinity, "next": }')],
    ['word.json', new TextEncoder().encode('{"limit": Infinity2}')],
    ['open.json', new TextEncoder().encode(`{"a": Infinity, "b": "${'\\"'.repeat(1e5)}`)],
  ]);
  const folder = memoryFolder('folder', files);
  assert.deepEqual(await readJson(folder, 'config.json'), {
    limit: [0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
    eps: Number.NaN,
    name: 'NaN, Infinity " -Infinity',
    n: 1,
  });
  await assert.rejects(readJson(folder, 'cut.json'), { code: 'InvalidJson', offset: 28, file: 'folder/cut.json' });
  await assert.rejects(readJson(folder, 'word.json'), { code: 'InvalidJson', offset: 10 });
  await assert.rejects(readJson(folder, 'open.json'), { code: 'InvalidJson' });
});
