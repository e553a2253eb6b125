/** Lanewise for browsers. */
import './disposal.ts';
import { browserHost } from './backend/wasm/threads/host-browser.ts';
import type { Encoder } from './engine/encoder.ts';
import { loadEncoderModel, loadModel, type ModelSource } from './engine/load.ts';
import type { Model } from './engine/model.ts';
import type { LoadOptions } from './engine/options.ts';
import { findFiles, type WebModelSource, type WebSourceOptions } from './hosting/web-source.ts';

export * from './index.ts';
export type { WebModelSource, WebSourceOptions } from './hosting/web-source.ts';

export interface WebLoadOptions extends LoadOptions, Omit<WebSourceOptions, 'signal'> {}

/**
 * Loads a model: from an id of the hub, from an address, or from files or a folder that a person chose. It uses several
 * threads when it is called in a worker of a page that is cross-origin isolated, otherwise one, and says so (`onWarning`).
 * @throws FormatError, ModelError, HubError, OptionError, OutOfMemoryError
 */
export async function load(source: WebModelSource, options: WebLoadOptions = {}): Promise<Model> {
  return loadFrom(loadModel, source, options);
}

/** Loads a model that turns texts into embeddings, from where `load` takes others. @throws as `load` */
export async function loadEncoder(source: WebModelSource, options: WebLoadOptions = {}): Promise<Encoder> {
  return loadFrom(loadEncoderModel, source, options);
}

async function loadFrom<M>(
  make: (source: ModelSource, options: LoadOptions) => Promise<M>,
  source: WebModelSource,
  options: WebLoadOptions,
): Promise<M> {
  const { endpoint, token, revision, headers, ...rest } = options ?? {};
  const found = await findFiles(source, { endpoint, token, revision, headers, signal: rest.signal });
  try {
    return await make({ folder: found.folder, file: found.file, host: browserHost() }, rest);
  } catch (error) {
    throw found.explain(error);
  }
}
