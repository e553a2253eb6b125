/** What of a file's tensors does not fit the config, gathered so that it is told at once. */
import { ModelError } from '../errors.ts';

/** Enough to tell: a config may claim any number of layers and experts. */
const MOST = 100;

export class Mismatches {
  readonly #texts = new Set<string>();
  readonly #file: string;

  /** @param file what the tensors should fit */
  constructor(file: string) {
    this.#file = file;
  }

  /** Notes one. @throws ModelError where they are enough */
  add(text: string): void {
    this.#texts.add(text);
    if (this.#texts.size === MOST) this.check();
  }

  /** @throws ModelError naming all that were noted */
  check(): void {
    const { size } = this.#texts;
    if (size === 0) return;
    const count = size === 1 ? 'a tensor does' : `${size === MOST ? 'at least ' : ''}${size} tensors do`;
    throw new ModelError('TensorMismatch', `${count} not fit ${this.#file}:`, [...this.#texts]);
  }
}
