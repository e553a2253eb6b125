/** Weights with NaN or infinities are refused at load, by both backends. */
import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { load } from '../../src/node.ts';

const golden = fileURLToPath(new URL('../golden', import.meta.url));
let scratch: string;
before(async () => void (scratch = await mkdtemp(join(tmpdir(), 'lanewise-'))));
after(() => rm(scratch, { recursive: true, force: true }));

const backends = ['wasm', 'reference'] as const;
type Options = NonNullable<Parameters<typeof load>[1]>;

async function loads(path: string, options: Options): Promise<void> {
  await (await load(path, { inline: true, ...options })).dispose();
}

/** A copy of a golden model whose tensor has other bytes at an offset. */
async function damaged(model: string, tensor: string, offset: number, bytes: Uint8Array): Promise<string> {
  const folder = join(scratch, model);
  await rm(folder, { recursive: true, force: true });
  await cp(`${golden}/models/${model}`, folder, { recursive: true });
  const checkpoint = await openCheckpoint(nodeFolder(folder));
  const info = checkpoint.tensors.get(tensor)!;
  await checkpoint.close();
  const file = join(folder, info.file);
  const all = await readFile(file);
  // The last bytes, where the offset is negative.
  all.set(bytes, info.offset + (offset < 0 ? info.byteLength + offset : offset));
  await writeFile(file, all);
  return folder;
}

const half = (bits: number): Uint8Array => new Uint8Array(Uint16Array.of(bits).buffer);
const single = (value: number): Uint8Array => new Uint8Array(Float32Array.of(value).buffer);

const cases = [
  {
    model: 'llama-gqa-f16',
    matrix: 'model.layers.1.mlp.up_proj.weight',
    vector: 'model.norm.weight',
    nan: half(0x7e00),
    infinity: half(0xfc00),
    size: 2,
  },
  {
    model: 'llama3-rope-bf16',
    matrix: 'model.layers.1.self_attn.k_proj.weight',
    vector: 'model.norm.weight',
    nan: half(0xffc0),
    infinity: half(0x7f80),
    size: 2,
  },
  {
    model: 'gpt2-tied-f32',
    matrix: 'h.1.mlp.c_fc.weight',
    vector: 'h.1.ln_2.bias',
    nan: single(Number.NaN),
    infinity: single(Number.NEGATIVE_INFINITY),
    size: 4,
  },
];

for (const { model, matrix, vector, nan, infinity, size } of cases) {
  for (const tensor of [matrix, vector]) {
    for (const [value, bytes] of [
      [/NaN/, nan],
      [/-?Infinity/, infinity],
    ] as const) {
      test(`${model}: ${value.source} at the start and the end of ${tensor}`, async () => {
        for (const offset of [0, -size]) {
          const folder = await damaged(model, tensor, offset, bytes);
          for (const quantize of ['none', 'q8_0', 'q4_0']) {
            for (const backend of backends) {
              await assert.rejects(loads(folder, { backend, quantize, threads: 2 }), (error: Error) => {
                assert.equal((error as { code?: string }).code, 'NotFinite', error.message);
                assert.ok(error.message.startsWith(`model.safetensors: ${tensor}: expected finite values, found `));
                assert.match(error.message, value);
                assert.ok(!error.message.includes('\n'));
                return true;
              });
            }
          }
        }
      });
    }
  }
}

/** Just above and just below the largest f16 scale of a block. */
for (const [quantize, fits, exceeds] of [
  ['q8_0', 8.32e6, 8.33e6],
  ['q4_0', 5.24e5, 5.25e5],
  ['none', 3e38, Number.NaN],
] as const) {
  test(`values are refused that ${quantize} would make infinite, no others`, async () => {
    for (const [value, refused] of [
      [fits, false],
      [-exceeds, true],
    ] as const) {
      const folder = await damaged('gpt2-tied-f32', 'h.0.mlp.c_fc.weight', 512, single(value));
      for (const backend of backends) {
        if (refused) await assert.rejects(loads(folder, { backend, quantize }), { code: 'NotFinite' });
        else await loads(folder, { backend, quantize });
      }
    }
  });
}

for (const [type, dtype, scales] of [
  ['q8_0', 'Q8_0', [0]],
  ['q4_0', 'Q4_0', [0]],
  ['q4_k_m', 'Q4_K', [0, 2]],
  ['q5_k_m', 'Q5_K', [0, 2]],
  ['q6_k', 'Q6_K', [208]],
  ['iq4_nl', 'IQ4_NL', [0]],
] as const) {
  test(`${dtype}: scales of blocks that are no numbers`, async () => {
    const bytes = await readFile(`${golden}/gguf/llama-256-${type}.gguf`);
    const checkpoint = await openGguf(nodeFolder(`${golden}/gguf`), `llama-256-${type}.gguf`);
    const tensor = [...checkpoint.tensors.values()].find((t) => t.dtype === dtype && t.shape.length === 2)!;
    await checkpoint.close();
    const blockBytes = { Q8_0: 34, Q4_0: 18, Q4_K: 144, Q5_K: 176, Q6_K: 210, IQ4_NL: 18 }[dtype];
    const file = join(scratch, 'damaged.gguf');
    for (const scale of scales) {
      for (const block of [0, tensor.byteLength / blockBytes - 1]) {
        for (const bits of [0x7e00, 0xfc00]) {
          const copy = Buffer.from(bytes);
          copy.writeUInt16LE(bits, tensor.offset + block * blockBytes + scale);
          await writeFile(file, copy);
          for (const backend of backends) {
            await assert.rejects(loads(file, { backend, threads: 2 }), (error: Error) => {
              assert.equal((error as { code?: string }).code, 'NotFinite', error.message);
              assert.ok(error.message.startsWith(`damaged.gguf: ${tensor.name}: expected finite values, found `));
              return true;
            });
          }
        }
      }
    }
  });
}
