/** Writes a model in another storage type as a file. */
import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { ModelSource } from '../engine/load.ts';
import { OptionError } from '../errors.ts';
import {
  type GgufTensorToWrite,
  type TensorToWrite,
  writeAtomically,
  writeGguf,
  writeSafeTensors,
} from '../formats/adapters/node.ts';
import type { Quantize } from '../models/storage-plan.ts';
import { type CalibrationText, calibrateRecipes } from './calibrated.ts';
import { type ConvertedTensor, convertedBytes, convertTensor, inlineConverter, type WritableType } from './convert.ts';
import { ThreadedConverter } from './convert-node.ts';
import { planQuantization } from './quantize.ts';

export interface QuantizeOptions {
  /** Type of the matrices; SafeTensors files can have f32, f16 and bf16. */
  to: WritableType;
  /** Storage policy of the linear layers, or a plan for a .gguf file (docs/plans.md); what it leaves alone becomes `to`. */
  policy?: Quantize;
  /**
   * Quantize with a text (docs/calibration.md): the model computes it, and each matrix is rounded so that its outputs on the
   * text stay close. For .gguf files.
   */
  calibrate?: CalibrationText;
  /** Measure what each tensor loses: see `error()` of the tensors. Default false. */
  metrics?: boolean;
  /** Overwrite a file. Default false. */
  force?: boolean;
  /** Bytes written so far, and of all. */
  onProgress?: (done: number, total: number) => void;
  /** Values calibrated so far, and of all. */
  onCalibrated?: (done: number, total: number) => void;
  /** Threads of the calibration. Default: the number of cores. */
  threads?: number;
  signal?: AbortSignal;
}

export interface QuantizeReport {
  readonly tensors: readonly ConvertedTensor[];
  /** Data that the new file lacks. */
  readonly warnings: readonly string[];
}

/** Smaller files are written before threads would have started. */
const WORTH_THREADS = 32e6;

const formatOf = (output: string): 'gguf' | 'safetensors' | undefined =>
  /\.(gguf|safetensors)$/.exec(output)?.[1] as 'gguf' | 'safetensors' | undefined;

/** Before a model is fetched. @throws OptionError */
export async function checkOutput(output: string, { to, calibrate, force = false }: QuantizeOptions): Promise<void> {
  const format = formatOf(output);
  if (format === undefined) throw new OptionError('output', 'a name that ends in .gguf or .safetensors', output);
  if (format === 'safetensors' && to !== 'f32' && to !== 'f16' && to !== 'bf16')
    throw new OptionError('to', 'f32, f16 or bf16 for a .safetensors file', to);
  if (format === 'safetensors' && calibrate)
    throw new OptionError('calibrate', 'left out for a .safetensors file, which has no blocks', calibrate.name);
  if (!force && (await stat(output).catch(() => undefined)))
    throw new OptionError('output', 'a new file (or force it)', output);
}

/** @throws FormatError, ModelError */
export async function writeQuantized(
  source: Pick<ModelSource, 'folder' | 'file' | 'host'>,
  output: string,
  options: QuantizeOptions,
): Promise<QuantizeReport> {
  const { to, policy, calibrate, metrics = false, onProgress, signal } = options;
  const format = formatOf(output)!;
  const model = await planQuantization(source.folder, source.file, { to, policy, format });
  const threads = new ThreadedConverter();
  try {
    const recipes = calibrate ? await calibrateRecipes(source, model.recipes, calibrate, options) : model.recipes;
    let done = 0;
    const total = recipes.reduce((sum, recipe) => sum + convertedBytes(recipe), 0);
    const onBytes = (count: number): void => onProgress?.((done += count), total);
    const converter = total > WORTH_THREADS ? threads : inlineConverter;
    const tensors = recipes.map((recipe) => convertTensor(recipe, { converter, metrics, onBytes, signal }));
    if (format === 'gguf') await writeGguf(output, tensors as GgufTensorToWrite[], model.metadata);
    else {
      await writeSafeTensors(output, tensors as TensorToWrite[], { format: 'pt' });
      for (const [name, text] of model.beside) {
        const companion = join(dirname(output), name);
        if (await stat(companion).catch(() => undefined)) continue;
        await writeAtomically(companion, async (handle) => handle.writeFile(text));
      }
    }
    return { tensors, warnings: [...model.warnings, ...threads.warnings] };
  } finally {
    await threads.close();
    await model.close();
  }
}
