/** Lanewise for browsers. */
import { browserHost } from './backend/wasm/host-browser.ts';
import { loadModel } from './engine/load.ts';
import type { Model } from './engine/model.ts';
import type { LoadOptions } from './engine/options.ts';
import { blobFolder } from './formats/adapters/blob.ts';
import { fetchFolder } from './formats/adapters/fetch.ts';

export * from './index.ts';

/**
 * Loads a model from the address of its folder (the server must answer range requests) or from files that a person chose.
 * It uses several threads when it is called in a worker of a page that is cross-origin isolated, otherwise one.
 * @throws FormatError, ModelError, OptionError, OutOfMemoryError
 */
export function load(source: string | URL | readonly File[], options: LoadOptions = {}): Promise<Model> {
  const folder =
    typeof source === 'string' || source instanceof URL ? fetchFolder(source) : blobFolder('chosen files', [...source]);
  return loadModel({ folder, host: browserHost() }, options);
}
