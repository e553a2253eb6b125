/** Lanewise for Node. */
import { stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { q8Layout } from './backend/wasm/choice.ts';
import { nodeHost } from './backend/wasm/host-node.ts';
import { chooseKernels } from './backend/wasm/probe.ts';
import { measureRoofs, type Roofs } from './backend/wasm/roof.ts';
import { describe, loadModel, type ModelSource } from './engine/load.ts';
import type { Model } from './engine/model.ts';
import type { LoadOptions } from './engine/options.ts';
import { ModelError } from './errors.ts';
import { nodeFolder } from './formats/adapters/node.ts';
import type { ModelDescription } from './models/index.ts';

export { writeSafeTensors } from './formats/adapters/node.ts';
export * from './index.ts';

/** The folder of the model that comes with the package. */
export const embeddedModel = fileURLToPath(new URL('../models/lanewise-stories', import.meta.url));

/**
 * Loads a model: a folder, a .gguf file, or a .safetensors file beside its config.json; nothing for the embedded one.
 * @throws FormatError, ModelError, OptionError, OutOfMemoryError
 */
export async function load(path: string = embeddedModel, options: LoadOptions = {}): Promise<Model> {
  return loadModel(await locate(path), options);
}

/** What a model is and how `quantize` would store it. Reads headers only. @throws FormatError, ModelError, OptionError */
export async function describeModel(path: string = embeddedModel, quantize?: string): Promise<ModelDescription> {
  return describe(await locate(path), quantize);
}

/** This machine's ceilings, measured now: memory reads and tiles. */
export function measureMachine(threads?: number): Promise<Roofs> {
  const host = nodeHost();
  const choice = chooseKernels(host);
  return measureRoofs(host, { threads: threads ?? host.cores, wide: choice.wide, q8: q8Layout(choice) });
}

/** @throws ModelError where there is no such folder or file */
export async function locate(path: string): Promise<ModelSource> {
  const full = resolve(path);
  const status = await stat(full).catch(() => undefined);
  if (!status)
    throw new ModelError(
      'NoModel',
      `${path}: expected a model folder, a .safetensors or a .gguf file, found nothing there`,
    );
  if (status.isDirectory()) return { folder: nodeFolder(full), host: nodeHost() };
  if (!/\.(safetensors|gguf)$/.test(full)) {
    throw new ModelError(
      'NoModel',
      `${path}: expected a folder, a .gguf file, or a .safetensors file beside its config.json`,
    );
  }
  return { folder: nodeFolder(dirname(full)), file: basename(full), host: nodeHost() };
}
