/** Bytes of trace events: text and numbers, in pieces. A kernel's event must cost far less than the kernel. */

const PIECE = 256 * 1024;
/** More than a complete event needs beside its head. */
const TAIL = 128;
/** Milliseconds after which a piece that is not full is written. */
const PATIENCE_MS = 250;
const DIGITS = 9;
const [ZERO, POINT] = [48, 46];

const encoder = new TextEncoder();
const duration = encoder.encode(',"dur":');
const time = encoder.encode(',"ts":');

export class EventBytes {
  readonly #write: (bytes: Uint8Array<ArrayBuffer>) => void;
  #piece = new Uint8Array(PIECE);
  #length = 0;
  #flushedAt = performance.now();
  #closed = false;

  constructor(write: (bytes: Uint8Array<ArrayBuffer>) => void) {
    this.#write = write;
  }

  text(text: string): void {
    if (this.#closed) return;
    // A code unit takes at most three bytes.
    if (this.#length + 3 * text.length > PIECE) this.flush();
    if (3 * text.length > PIECE) this.#write(encoder.encode(text));
    else this.#length += encoder.encodeInto(text, this.#piece.subarray(this.#length)).written;
  }

  /** A complete event. @param head ends where the number of the track follows @param start @param end milliseconds */
  complete(head: Uint8Array, track: number, start: number, end: number): void {
    if (this.#closed) return;
    if (this.#length + head.length + TAIL > PIECE) this.flush();
    this.#bytes(head);
    this.#integer(track);
    this.#bytes(time);
    const from = Math.max(0, Math.round(start * 1e6));
    this.#microseconds(from);
    this.#bytes(duration);
    // Both ends are rounded in the same way, so that neighbours neither overlap nor leave a gap.
    this.#microseconds(Math.max(0, Math.round(end * 1e6) - from));
    this.#piece[this.#length++] = 0x7d;
  }

  /** Events made elsewhere. */
  add(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#closed) return;
    this.flush();
    this.#write(bytes);
  }

  flushNowAndThen(): void {
    if (performance.now() - this.#flushedAt > PATIENCE_MS) this.flush();
  }

  flush(): void {
    this.#flushedAt = performance.now();
    if (this.#length === 0) return;
    const piece = this.#piece.subarray(0, this.#length);
    this.#piece = new Uint8Array(PIECE);
    this.#length = 0;
    this.#write(piece);
  }

  /** Writes the rest; everything later is dropped. */
  close(): void {
    this.flush();
    this.#closed = true;
  }

  #bytes(bytes: Uint8Array): void {
    this.#piece.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /** Nanoseconds as microseconds with three decimals. */
  #microseconds(nanoseconds: number): void {
    const whole = Math.floor(nanoseconds / 1000);
    this.#integer(whole);
    const rest = nanoseconds - whole * 1000;
    if (rest === 0) return;
    this.#piece[this.#length++] = POINT;
    this.#digits(rest, 3);
  }

  #integer(value: number): void {
    // Numbers that fit 32 bits are divided several times as fast.
    const high = Math.floor(value / 10 ** DIGITS);
    if (high > 0) {
      this.#integer(high);
      this.#digits(value - high * 10 ** DIGITS, DIGITS);
      return;
    }
    let count = 1;
    for (let limit = 10; limit <= value; limit *= 10) count++;
    this.#digits(value, count);
  }

  #digits(value: number, count: number): void {
    let rest = value | 0;
    this.#length += count;
    for (let at = this.#length - 1; at >= this.#length - count; at--) {
      const next = (rest / 10) | 0;
      this.#piece[at] = ZERO + rest - next * 10;
      rest = next;
    }
  }
}
