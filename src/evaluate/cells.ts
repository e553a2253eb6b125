/** Pages that hold cells: what is left of shrunk blocks (CachePages.cells). */

interface Slot {
  readonly free: number[];
  /** Cells that hold a block, and those of them whose block is in use. */
  taken: number;
  used: number;
}

export class Cells {
  readonly #perPage: number;
  readonly #slots = new Map<number, Slot>();
  /** Pages with free cells. */
  readonly #open = new Set<number>();
  #freeCells = 0;
  #idlePages = 0;

  /** @param perPage 0: nothing is left of a shrunk block */
  constructor(perPage: number) {
    this.#perPage = perPage;
  }

  /** Pages of which no cell is in use. */
  get idlePages(): number {
    return this.#idlePages;
  }

  /** Pages that are free when so many blocks have been shrunk. */
  gain(blocks: number): number {
    if (this.#perPage === 0) return blocks;
    return blocks - Math.ceil(Math.max(0, blocks - this.#freeCells) / this.#perPage);
  }

  /** A cell for a block in use; the first one of its own page where no other is free. -1: it needs none. */
  take(page: number): number {
    if (this.#perPage === 0) return -1;
    const [open] = this.#open;
    if (open === undefined) {
      const free = Array.from({ length: this.#perPage - 1 }, (_, i) => (page + 1) * this.#perPage - 1 - i);
      this.#slots.set(page, { free, taken: 1, used: 1 });
      this.#freeCells += free.length;
      if (free.length > 0) this.#open.add(page);
      return page * this.#perPage;
    }
    const slot = this.#slots.get(open)!;
    const cell = slot.free.pop()!;
    this.#freeCells--;
    if (slot.free.length === 0) this.#open.delete(open);
    slot.taken++;
    if (slot.used++ === 0) this.#idlePages--;
    return cell;
  }

  /** The block of a cell is in use again. */
  use(cell: number): void {
    const slot = this.#slotOf(cell);
    if (slot && slot.used++ === 0) this.#idlePages--;
  }

  /** The block of a cell is in use no more. */
  leave(cell: number): void {
    const slot = this.#slotOf(cell);
    if (slot && --slot.used === 0) this.#idlePages++;
  }

  /** Gives back a cell whose block is not in use. @returns its page, where it was the last one there */
  free(cell: number): number | undefined {
    const slot = this.#slotOf(cell);
    if (!slot) return undefined;
    const page = Math.floor(cell / this.#perPage);
    slot.free.push(cell);
    this.#freeCells++;
    this.#open.add(page);
    if (--slot.taken > 0) return undefined;
    this.#slots.delete(page);
    this.#open.delete(page);
    this.#freeCells -= slot.free.length;
    this.#idlePages--;
    return page;
  }

  #slotOf(cell: number): Slot | undefined {
    return cell < 0 ? undefined : this.#slots.get(Math.floor(cell / this.#perPage));
  }
}
