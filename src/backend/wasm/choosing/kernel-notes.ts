/** What was found out on this machine: numbers by name, kept from one process to the next where the host can. */
import type { Notes } from '../threads/host.ts';

export class KernelNotes {
  readonly #notes: Notes | undefined;
  readonly #known: Record<string, number>;
  #changed = false;

  /** @param notes those of another machine, and whatever cannot be read, are none */
  constructor(notes: Notes | undefined) {
    this.#notes = notes;
    this.#known = notes ? knownOf(notes) : {};
  }

  /** Whether it is worth finding something out for next time. */
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

  /** Writes what has changed. */
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
