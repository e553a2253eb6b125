/** Results of checks and measurements on this machine, by name. Kept between processes if the host can. */
import type { Notes } from '../threads/host.ts';

export class KernelNotes {
  readonly #notes: Notes | undefined;
  readonly #known: Record<string, number>;
  #changed = false;

  /** @param notes ignored if they cannot be read or belong to another machine */
  constructor(notes: Notes | undefined) {
    this.#notes = notes;
    this.#known = notes ? knownOf(notes) : {};
  }

  /** Whether results are kept for the next process. */
  get keeps(): boolean {
    return this.#notes !== undefined;
  }

  get(name: string): number | undefined {
    return Object.hasOwn(this.#known, name) ? this.#known[name] : undefined;
  }

  set(name: string, value: number): void {
    this.#known[name] = value;
    this.#changed = true;
  }

  /** Writes changes. */
  close(): void {
    if (!this.#notes || !this.#changed) return;
    this.#notes.write(JSON.stringify({ machine: this.#notes.machine, known: this.#known }));
    this.#changed = false;
  }
}

function knownOf(notes: Notes): Record<string, number> {
  try {
    const { machine, known } = JSON.parse(notes.read() ?? '') as { machine?: unknown; known?: unknown };
    if (machine !== notes.machine || typeof known !== 'object' || known === null) return {};
    return Object.fromEntries(
      Object.entries(known).filter((entry): entry is [string, number] => Number.isInteger(entry[1])),
    );
  } catch {
    return {};
  }
}
