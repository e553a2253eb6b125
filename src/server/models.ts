/** The models of a server, by name. */
import type { Model } from '../engine/model.ts';
import { ApiError } from './errors.ts';

export interface ServedModel {
  /** The name that requests give. */
  readonly name: string;
  /** Where the model came from: a path, or an id of the hub. */
  readonly root: string;
  readonly model: Model;
  /** Seconds since 1970 at which it was loaded. */
  readonly created: number;
}

export class Models {
  readonly #models: ReadonlyMap<string, ServedModel>;

  /** @param models the first one serves requests that name none */
  constructor(models: readonly ServedModel[]) {
    this.#models = new Map(models.map((served) => [served.name, served]));
  }

  all(): ServedModel[] {
    return [...this.#models.values()];
  }

  /** @throws ApiError 404 */
  find(name: string | undefined): ServedModel {
    const found = name === undefined ? this.#models.values().next().value : this.#models.get(name);
    if (found) return found;
    const known = [...this.#models.keys()].join(', ');
    const message = `the model ${JSON.stringify(name)} does not exist; this server has ${known || 'none'}`;
    throw new ApiError(message, { status: 404, code: 'model_not_found', param: 'model' });
  }
}
