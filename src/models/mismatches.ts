/** Collects tensors that do not fit the config, to report them in one error. */
import { ModelError } from '../errors.ts';

/** Most mismatches reported: a config may claim any number of layers and experts. */
const MOST = 100;

export class Mismatches {
  readonly #texts = new Set<string>();
  readonly #file: string;

  /** @param file the config that the tensors should fit */
  constructor(file: string) {
    this.#file = file;
  }

  /** Adds a mismatch. @throws ModelError if the most are reached */
  add(text: string): void {
    this.#texts.add(text);
    if (this.#texts.size === MOST) this.check();
  }

  /** @throws ModelError that lists all mismatches, if there are any */
  check(): void {
    const { size } = this.#texts;
    if (size === 0) return;
    const count = size === 1 ? 'a tensor does' : `${size === MOST ? 'at least ' : ''}${size} tensors do`;
    throw new ModelError('TensorMismatch', `${count} not fit ${this.#file}:`, [...this.#texts]);
  }
}
