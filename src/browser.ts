/** Lanewise for browsers. */
import './disposal.ts';
import { browserHost } from './backend/wasm/threads/host-browser.ts';
import type { Encoder } from './engine/encoder.ts';
import type { Engine } from './engine/engine.ts';
import { loadEncoderModel, loadEngine, type ModelSource } from './engine/load.ts';
import { Model } from './engine/model.ts';
import { type LoadOptions, validateLoad } from './engine/options.ts';
import { loadHosted } from './hosting/load-hosted.ts';
import { startEngineThread } from './hosting/thread-browser.ts';
import { findFiles, sourceForWorker, type WebModelSource, type WebSourceOptions } from './hosting/web-source.ts';

export type { WebModelSource, WebSourceOptions } from './hosting/web-source.ts';
export * from './index.ts';

export interface WebLoadOptions extends LoadOptions, Omit<WebSourceOptions, 'signal'> {}

/**
 * Loads a model: from an id of the hub, from an address, or from files or a folder that a person chose. Its engine has a
 * worker of its own, unless `inline` is given (docs/hosting.md), with several threads where the page is cross-origin isolated;
 * otherwise one, and `onWarning` is told so.
 * @throws FormatError, ModelError, HubError, OptionError, OutOfMemoryError
 */
export async function load(source: WebModelSource, options: WebLoadOptions = {}): Promise<Model> {
  const [place, rest] = apart(options);
  const { inline } = validateLoad(rest);
  const loadInline = (): Promise<Engine> =>
    loadFrom(async (found, given) => (await loadEngine(found, given)).engine, source, options);
  if (inline) return new Model(await loadInline());
  const hosted = { start: startEngineThread, source: [sourceForWorker(source), place], name: 'the model' };
  return new Model(await loadHosted(hosted, rest, loadInline));
}

/** Loads a model that turns texts into embeddings, from where `load` takes others. @throws as `load` */
export async function loadEncoder(source: WebModelSource, options: WebLoadOptions = {}): Promise<Encoder> {
  return loadFrom(loadEncoderModel, source, options);
}

/** Where the files are, and how they are loaded. */
function apart(options: WebLoadOptions): [place: Omit<WebSourceOptions, 'signal'>, rest: LoadOptions] {
  const { endpoint, token, revision, headers, ...rest } = options ?? {};
  return [{ endpoint, token, revision, headers }, rest];
}

async function loadFrom<M>(
  make: (source: ModelSource, options: LoadOptions) => Promise<M>,
  source: WebModelSource,
  options: WebLoadOptions,
): Promise<M> {
  const [place, rest] = apart(options);
  const found = await findFiles(source, { ...place, signal: rest.signal });
  try {
    return await make({ folder: found.folder, file: found.file, host: browserHost() }, rest);
  } catch (error) {
    throw found.explain(error);
  }
}
