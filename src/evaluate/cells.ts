/** Allocates cells, the storage of shrunk blocks (see CachePages.cells), in pages of the KV cache. */

/** A page that holds cells. */
interface Slot {
  readonly free: number[];
  /** Number of cells with a block, and number of these blocks that are in use. */
  taken: number;
  used: number;
}

export class Cells {
  readonly #perPage: number;
  readonly #slots = new Map<number, Slot>();
  /** Numbers of the pages with free cells. */
  readonly #open = new Set<number>();
  #freeCells = 0;
  #idlePages = 0;

  /** @param perPage cells of a page; 0: a shrunk block needs no storage */
  constructor(perPage: number) {
    this.#perPage = perPage;
  }

  /** Number of pages whose blocks are all unused. */
  get idlePages(): number {
    return this.#idlePages;
  }

  /** Number of pages that shrinking `blocks` blocks frees. */
  gain(blocks: number): number {
    if (this.#perPage === 0) return blocks;
    return blocks - Math.ceil(Math.max(0, blocks - this.#freeCells) / this.#perPage);
  }

  /** Allocates a cell for a block in use: the first cell of its own page if no other is free; -1 if it needs none. */
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

  /** Notes that the block of a cell is in use again. */
  use(cell: number): void {
    const slot = this.#slotOf(cell);
    if (slot && slot.used++ === 0) this.#idlePages--;
  }

  /** Notes that the block of a cell is unused now. */
  leave(cell: number): void {
    const slot = this.#slotOf(cell);
    if (slot && --slot.used === 0) this.#idlePages++;
  }

  /** Frees a cell whose block is unused. @returns its page, if this was the last cell there */
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
