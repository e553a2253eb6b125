/** Finds the files of a model under Node, from a path or an id of the hub. */
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname, resolve } from 'node:path';
import type { WasmHost } from '../backend/wasm/threads/host.ts';
import { cachedNotes, nodeHost } from '../backend/wasm/threads/host-node.ts';
import type { ModelSource } from '../engine/load.ts';
import { ModelError, OptionError } from '../errors.ts';
import { nodeFiles, nodeFolder, openError } from '../formats/adapters/node.ts';
import { modelAt } from '../hub/model.ts';

/** The host, with notes on measurements of this machine. */
const rememberingHost = (): WasmHost => ({ ...nodeHost(), notes: cachedNotes() });

/** Status of a path; undefined if nothing is there. @throws FormatError NotPermitted under Node's permission model */
export function statusOf(file: string): Promise<Stats | undefined> {
  return stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ERR_ACCESS_DENIED') throw openError(file, error);
    return undefined;
  });
}

/**
 * Finds a model's files, downloading a model of the hub if the cache lacks it.
 * @throws OptionError; ModelError, HubError if there is no such folder or file
 */
export async function locatePath(given: string, signal?: AbortSignal): Promise<ModelSource> {
  if (typeof given !== 'string') throw new OptionError('path', 'the path of a model', given);
  const path = await modelAt(given, { signal });
  const full = resolve(path);
  const status = await statusOf(full);
  if (!status)
    throw new ModelError(
      'NoModel',
      `${path}: expected a model folder, a .safetensors or .gguf file, or an id of the hub (organisation/name), found nothing there`,
    );
  const host = rememberingHost();
  const other = (path: string): Promise<ModelSource> => locatePath(path, signal);
  if (status.isDirectory()) return { folder: nodeFolder(full), host, files: nodeFiles, other };
  if (!/\.(safetensors|gguf)$/.test(full)) {
    throw new ModelError(
      'NoModel',
      `${path}: expected a folder, a .gguf file, or a .safetensors file beside its config.json`,
    );
  }
  return { folder: nodeFolder(dirname(full)), file: basename(full), host, files: nodeFiles, other };
}
