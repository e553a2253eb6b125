/** The Dense and LayerNorm modules of sentence-transformers, in double precision on one thread. */
import { ModelError } from '../errors.ts';
import type { FileFolder } from '../formats/bytes.ts';
import { type Checkpoint, openCheckpoint } from '../formats/checkpoint.ts';
import { dequantizeBF16 } from '../quant/bf16.ts';
import { dequantizeF16 } from '../quant/f16.ts';
import { activationNamed, activations } from './activations.ts';
import { type ModuleSettings, shown, unsupported } from './module-settings.ts';

export interface SizedModule {
  run(vector: Float32Array): Float32Array;
  /** Length of the vectors that the module returns. */
  readonly width: number;
}

const WEIGHTS = 'model.safetensors';

/**
 * y = f(W x + b), plus x or a matrix times x if `use_residual` is set.
 * @param width length of the input vectors @throws ModelError, FormatError
 */
export async function readDense(folder: FileFolder, config: ModuleSettings, width: number): Promise<SizedModule> {
  const file = `${folder.name}/config.json`;
  const [inputs, outputs] = [sizeOf(config, 'in_features', file), sizeOf(config, 'out_features', file)];
  if (inputs !== width)
    throw unsupported(file, `expected in_features ${width}, the size of the vectors, found ${inputs}`);
  const [bias, residual] = [flagOf(config, 'bias', true, file), flagOf(config, 'use_residual', false, file)];
  const { activation_function: named = 'torch.nn.Tanh' } = config;
  const activation = activationNamed(named);
  if (!activation) {
    const names = Object.keys(activations).join(', ');
    throw unsupported(file, `expected an activation_function of torch.nn (${names}), found ${shown(named)}`);
  }
  const projected = residual && inputs !== outputs;
  const shapes: Record<string, readonly number[]> = { 'linear.weight': [outputs, inputs] };
  if (bias) shapes['linear.bias'] = [outputs];
  if (projected) shapes['residual.weight'] = [outputs, inputs];
  const weights = await readWeights(folder, shapes);
  const [linear, shift, shortcut] = ['linear.weight', 'linear.bias', 'residual.weight'].map((key) => weights.get(key));
  const run = (x: Float32Array): Float32Array => {
    const y = product(linear!, x, outputs, shift);
    for (let o = 0; o < outputs; o++) y[o] = activation(y[o]!);
    if (!residual) return Float32Array.from(y);
    const added: ArrayLike<number> = shortcut ? product(shortcut, x, outputs, undefined) : x;
    return Float32Array.from(y, (value, o) => value + added[o]!);
  };
  return { run, width: outputs };
}

/** W x + b with W [outputs, inputs]. Each row has four partial sums, added in pairs. */
function product(w: Float32Array, x: Float32Array, outputs: number, b: Float32Array | undefined): Float64Array {
  const inputs = x.length;
  const even = inputs - (inputs % 4);
  const y = new Float64Array(outputs);
  for (let o = 0; o < outputs; o++) {
    const row = o * inputs;
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let i = 0; i < even; i += 4) {
      s0 += w[row + i]! * x[i]!;
      s1 += w[row + i + 1]! * x[i + 1]!;
      s2 += w[row + i + 2]! * x[i + 2]!;
      s3 += w[row + i + 3]! * x[i + 3]!;
    }
    for (let i = even; i < inputs; i++) s0 += w[row + i]! * x[i]!;
    y[o] = s0 + s1 + (s2 + s3) + (b ? b[o]! : 0);
  }
  return y;
}

/** Default `eps` of torch.nn.LayerNorm. */
const EPSILON = 1e-5;

/** @throws ModelError, FormatError */
export async function readLayerNorm(folder: FileFolder, config: ModuleSettings, width: number): Promise<SizedModule> {
  const file = `${folder.name}/config.json`;
  const dimension = sizeOf(config, 'dimension', file);
  if (dimension !== width)
    throw unsupported(file, `expected dimension ${width}, the size of the vectors, found ${dimension}`);
  const weights = await readWeights(folder, { 'norm.weight': [width], 'norm.bias': [width] });
  const [scale, shift] = [weights.get('norm.weight')!, weights.get('norm.bias')!];
  const run = (x: Float32Array): Float32Array => {
    const mean = x.reduce((sum, value) => sum + value, 0) / width;
    const variance = x.reduce((sum, value) => sum + (value - mean) * (value - mean), 0) / width;
    const inverse = 1 / Math.sqrt(variance + EPSILON);
    return x.map((value, i) => (value - mean) * inverse * scale[i]! + shift[i]!);
  };
  return { run, width };
}

/** Reads the tensors of a module as f32, exactly those of `shapes`. @throws ModelError, FormatError */
async function readWeights(
  folder: FileFolder,
  shapes: Readonly<Record<string, readonly number[]>>,
): Promise<Map<string, Float32Array>> {
  const file = `${folder.name}/${WEIGHTS}`;
  const source = await folder.open(WEIGHTS);
  if (!source) {
    const pickled = await folder.open('pytorch_model.bin');
    await pickled?.dispose();
    const found = pickled ? 'pytorch_model.bin, which is a Python program: save the model again' : 'no such file';
    throw unsupported(file, `expected the weights of the module, found ${found}`);
  }
  await source.dispose();
  const checkpoint = await openCheckpoint(folder, WEIGHTS);
  try {
    const extra = [...checkpoint.tensors.keys()].find((name) => !Object.hasOwn(shapes, name));
    if (extra !== undefined)
      throw unsupported(
        file,
        `expected the tensors ${Object.keys(shapes).join(', ')}, found ${extra.slice(0, 120)} too`,
      );
    const weights = new Map<string, Float32Array>();
    for (const [name, shape] of Object.entries(shapes))
      weights.set(name, await readTensor(checkpoint, file, name, shape));
    return weights;
  } finally {
    await checkpoint.close();
  }
}

async function readTensor(
  checkpoint: Checkpoint,
  file: string,
  name: string,
  shape: readonly number[],
): Promise<Float32Array> {
  const tensor = checkpoint.tensors.get(name);
  const expected = `expected ${name} [${shape.join(', ')}] as F32, F16 or BF16`;
  if (!tensor) throw unsupported(file, `${expected}, found no such tensor`);
  const { dtype, byteLength } = tensor;
  if (!['F32', 'F16', 'BF16'].includes(dtype) || tensor.shape.join() !== shape.join())
    throw unsupported(file, `${expected}, found ${dtype} [${tensor.shape.join(', ')}]`);
  const bytes = new Uint8Array(byteLength);
  await tensor.readInto(0, bytes);
  const values =
    dtype === 'F32' ? new Float32Array(bytes.buffer) : dtype === 'F16' ? dequantizeF16(bytes) : dequantizeBF16(bytes);
  const bad = values.find((value) => !Number.isFinite(value));
  if (bad === undefined) return values;
  throw new ModelError('NotFinite', `${file}: ${name}: expected finite values, found ${bad}: get the file again`);
}

function sizeOf(config: ModuleSettings, key: string, file: string): number {
  const value = config[key];
  if (Number.isInteger(value) && (value as number) > 0 && (value as number) <= 2 ** 20) return value as number;
  throw unsupported(file, `expected a positive integer as ${key}, found ${shown(value)}`);
}

function flagOf(config: ModuleSettings, key: string, otherwise: boolean, file: string): boolean {
  const value = config[key] ?? otherwise;
  if (typeof value === 'boolean') return value;
  throw unsupported(file, `expected true or false as ${key}, found ${shown(value)}`);
}
