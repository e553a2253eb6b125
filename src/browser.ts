/** Lanewise for browsers. */
import './disposal.ts';
import { browserHost } from './backend/wasm/host-browser.ts';
import type { Encoder } from './engine/encoder.ts';
import { loadEncoderModel, loadModel } from './engine/load.ts';
import type { Model } from './engine/model.ts';
import type { LoadOptions } from './engine/options.ts';
import { OptionError } from './errors.ts';
import { blobFolder } from './formats/adapters/blob.ts';
import { fetchFolder } from './formats/adapters/fetch.ts';
import type { FileFolder } from './formats/bytes.ts';

export * from './index.ts';

/**
 * Loads a model from the address of its folder (the server must answer range requests) or from files that a person chose.
 * It uses several threads when it is called in a worker of a page that is cross-origin isolated, otherwise one.
 * @throws FormatError, ModelError, OptionError, OutOfMemoryError
 */
export async function load(source: Source, options: LoadOptions = {}): Promise<Model> {
  return loadModel({ folder: folderOf(source), host: browserHost() }, options);
}

/** Loads a model that turns texts into embeddings, from where `load` takes others. @throws as `load` */
export async function loadEncoder(source: Source, options: LoadOptions = {}): Promise<Encoder> {
  return loadEncoderModel({ folder: folderOf(source), host: browserHost() }, options);
}

/** The address of a folder, or files that a person chose. */
export type Source = string | URL | readonly File[];

/** @throws OptionError */
function folderOf(source: Source): FileFolder {
  if (typeof source === 'string' || source instanceof URL) return fetchFolder(source);
  if (Symbol.iterator in Object(source)) return blobFolder('chosen files', source);
  throw new OptionError('source', 'the address of a folder or an array of files', source);
}
