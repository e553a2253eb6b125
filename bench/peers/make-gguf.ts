/**
 * Writes a GGUF file in the shape of a published model, with random weights and a usable vocabulary, for which
 * llama.cpp takes the same time as for the real one: `node bench/peers/make-gguf.ts SHAPE STORAGE OUT.gguf`.
 */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { benchModels, isShapeName, type ShapeName, shapeConfig, shapeNames } from '../shapes.ts';
import { type GgufStorage, GgufWriter, ggufStorages, isGgufStorage } from './gguf-writer.ts';

interface Size {
  readonly layers: number;
  readonly dim: number;
  readonly ffn: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  readonly context: number;
}

type Config = Readonly<Record<string, unknown>>;
const number = (config: Config, key: string): number => config[key] as number;

function gpt2(config: Config, storage: GgufStorage, file: GgufWriter): void {
  const [dim, heads, vocab, context] = ['n_embd', 'n_head', 'vocab_size', 'n_positions'].map((key) =>
    number(config, key),
  ) as [number, number, number, number];
  const ffn = 4 * dim;
  common(file, 'gpt2', { layers: number(config, 'n_layer'), dim, ffn, heads, context });
  file.f32('gpt2.attention.layer_norm_epsilon', number(config, 'layer_norm_epsilon'));
  gpt2Vocabulary(file, vocab);
  const norm = (name: string): void => {
    file.floats(`${name}.weight`, [dim], 1);
    file.floats(`${name}.bias`, [dim], 0);
  };
  const linear = (name: string, input: number, output: number): void => {
    file.matrix(`${name}.weight`, input, output, storage);
    file.floats(`${name}.bias`, [output], 0);
  };
  file.matrix('token_embd.weight', dim, vocab, storage);
  file.floats('position_embd.weight', [dim, context], 0);
  for (let i = 0; i < number(config, 'n_layer'); i++) {
    norm(`blk.${i}.attn_norm`);
    linear(`blk.${i}.attn_qkv`, dim, 3 * dim);
    linear(`blk.${i}.attn_output`, dim, dim);
    norm(`blk.${i}.ffn_norm`);
    linear(`blk.${i}.ffn_up`, dim, ffn);
    linear(`blk.${i}.ffn_down`, ffn, dim);
  }
  norm('output_norm');
}

/** Llama and Gemma 3. */
function decoder(config: Config, storage: GgufStorage, file: GgufWriter): void {
  const gemma = config.model_type === 'gemma3_text';
  const arch = gemma ? 'gemma3' : 'llama';
  const heads = number(config, 'num_attention_heads');
  const dim = number(config, 'hidden_size');
  const size: Size = {
    layers: number(config, 'num_hidden_layers'),
    dim,
    ffn: number(config, 'intermediate_size'),
    heads,
    kvHeads: number(config, 'num_key_value_heads'),
    headDim: number(config, 'head_dim') ?? dim / heads,
    vocab: number(config, 'vocab_size'),
    context: number(config, 'max_position_embeddings'),
  };
  const { layers, ffn, kvHeads, headDim, vocab } = size;
  common(file, arch, size);
  file.u32(`${arch}.attention.head_count_kv`, kvHeads);
  file.f32(`${arch}.attention.layer_norm_rms_epsilon`, number(config, 'rms_norm_eps'));
  for (const key of ['attention.key_length', 'attention.value_length', 'rope.dimension_count']) {
    file.u32(`${arch}.${key}`, headDim);
  }
  file.f32(`${arch}.rope.freq_base`, number(config, 'rope_theta'));
  if (gemma) file.u32('gemma3.attention.sliding_window', number(config, 'sliding_window'));
  sentencePieceVocabulary(file, vocab);
  const norm = (name: string, width = dim): void => file.floats(`${name}.weight`, [width], 1);
  const linear = (name: string, input: number, output: number): void =>
    file.matrix(`${name}.weight`, input, output, storage);
  linear('token_embd', dim, vocab);
  for (let i = 0; i < layers; i++) {
    norm(`blk.${i}.attn_norm`);
    linear(`blk.${i}.attn_q`, dim, heads * headDim);
    linear(`blk.${i}.attn_k`, dim, kvHeads * headDim);
    linear(`blk.${i}.attn_v`, dim, kvHeads * headDim);
    linear(`blk.${i}.attn_output`, heads * headDim, dim);
    norm(`blk.${i}.ffn_norm`);
    linear(`blk.${i}.ffn_gate`, dim, ffn);
    linear(`blk.${i}.ffn_up`, dim, ffn);
    linear(`blk.${i}.ffn_down`, ffn, dim);
    if (!gemma) continue;
    norm(`blk.${i}.attn_q_norm`, headDim);
    norm(`blk.${i}.attn_k_norm`, headDim);
    norm(`blk.${i}.post_attention_norm`);
    norm(`blk.${i}.post_ffw_norm`);
  }
  norm('output_norm');
  if (config.tie_word_embeddings === false) linear('output', dim, vocab);
}

function common(
  file: GgufWriter,
  arch: string,
  { layers, dim, ffn, heads, context }: Pick<Size, 'layers' | 'dim' | 'ffn' | 'heads' | 'context'>,
): void {
  file.string('general.architecture', arch);
  file.string('general.name', `${arch} with random weights`);
  file.u32('general.quantization_version', 2);
  file.u32(`${arch}.context_length`, context);
  file.u32(`${arch}.embedding_length`, dim);
  file.u32(`${arch}.block_count`, layers);
  file.u32(`${arch}.feed_forward_length`, ffn);
  file.u32(`${arch}.attention.head_count`, heads);
}

const tokenTypes = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

/** The 256 characters of GPT-2's byte alphabet, then fillers, then the end token. */
function gpt2Vocabulary(file: GgufWriter, vocab: number): void {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let moved = 256;
  const alphabet = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : moved++));
  const fillers = Array.from({ length: vocab - 257 }, (_, i) => `tok${256 + i}`);
  const end = vocab - 1;
  file.string('tokenizer.ggml.model', 'gpt2');
  file.string('tokenizer.ggml.pre', 'gpt-2');
  file.strings('tokenizer.ggml.tokens', [...alphabet, ...fillers, '<|endoftext|>']);
  file.i32s('tokenizer.ggml.token_type', [...Array(end).fill(tokenTypes.normal), tokenTypes.control]);
  file.strings('tokenizer.ggml.merges', []);
  file.u32('tokenizer.ggml.bos_token_id', end);
  file.u32('tokenizer.ggml.eos_token_id', end);
}

/** Special tokens, the 256 bytes, then fillers. */
function sentencePieceVocabulary(file: GgufWriter, vocab: number): void {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const fillers = Array.from({ length: vocab - 259 }, (_, i) => `\u2581t${259 + i}`);
  const { unknown, control, byte, normal } = tokenTypes;
  file.string('tokenizer.ggml.model', 'llama');
  file.strings('tokenizer.ggml.tokens', ['<unk>', '<s>', '</s>', ...bytes, ...fillers]);
  file.f32s(
    'tokenizer.ggml.scores',
    Array.from({ length: vocab }, (_, i) => -i),
  );
  file.i32s('tokenizer.ggml.token_type', [
    unknown,
    control,
    control,
    ...Array(256).fill(byte),
    ...Array(vocab - 259).fill(normal),
  ]);
  file.u32('tokenizer.ggml.bos_token_id', 1);
  file.u32('tokenizer.ggml.eos_token_id', 2);
}

export async function makeGguf(shape: ShapeName, storage: GgufStorage, path: string): Promise<void> {
  const file = new GgufWriter();
  const config = shapeConfig(shape);
  if (config.model_type === 'gpt2') gpt2(config, storage, file);
  else decoder(config, storage, file);
  await file.write(path);
}

/** Path of such a file in the folder of the benches. It is written if it does not exist. */
export async function cachedGguf(shape: ShapeName, storage: GgufStorage): Promise<string> {
  const file = join(benchModels, `${shape}-${storage}.gguf`);
  if (existsSync(file)) return file;
  console.error(`writing ${file}`);
  await mkdir(dirname(file), { recursive: true });
  await makeGguf(shape, storage, file);
  return file;
}

if (import.meta.main) {
  const [shape = '', storage = '', path] = process.argv.slice(2);
  if (!isShapeName(shape) || !isGgufStorage(storage) || path === undefined) {
    console.error(`usage: node bench/peers/make-gguf.ts ${shapeNames.join('|')} ${ggufStorages.join('|')} OUT.gguf`);
    process.exit(2);
  }
  await makeGguf(shape, storage, path);
}
