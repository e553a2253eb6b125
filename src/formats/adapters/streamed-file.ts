/** A file that is written piece by piece and can be completed at any time: a trace, a recording. */
import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { LanewiseError } from '../../errors.ts';
import { markUnfinished } from './node.ts';

/**
 * Written synchronously, so that memory never holds more than a piece, and under a temporary name until it is closed. If the
 * process ends earlier, by an exit or a signal that is handled, the file is completed and gets its name. After a write error,
 * further pieces are dropped and `close` throws.
 */
export class StreamedFile {
  readonly #path: string;
  readonly #temporary: string;
  readonly #file: number;
  readonly #unmark: () => void;
  readonly #finish = (): void => {
    try {
      this.complete();
      this.close();
    } catch {
      // The process is ending.
    }
  };
  /** Writes what makes the file complete, if the process ends. */
  complete: () => void = () => {};
  #failure: LanewiseError | undefined;
  #closed = false;

  /** @throws LanewiseError NotWritten */
  constructor(path: string) {
    this.#path = path;
    const there = statSync(path, { throwIfNoEntry: false });
    // A device or pipe is written in place, not replaced.
    const device = there !== undefined && !there.isFile() && !there.isDirectory();
    this.#temporary = device ? path : join(dirname(path), `.${basename(path)}.${randomUUID()}.partial`);
    if (there?.isDirectory()) throw notWritten(path, 'it is a folder');
    this.#file = this.#attempt(() => openSync(this.#temporary, device ? 'w' : 'wx'));
    this.#unmark = markUnfinished(this.#temporary, this.#finish);
    process.once('exit', this.#finish);
  }

  readonly write = (bytes: Uint8Array): void => {
    if (this.#closed || this.#failure) return;
    try {
      this.#attempt(() => {
        for (let done = 0; done < bytes.length; ) done += writeSync(this.#file, bytes, done);
      });
    } catch (error) {
      this.#failure = error as LanewiseError;
    }
  };

  /** Gives the file its name. May be called twice. @throws LanewiseError NotWritten if a write failed; the file is then removed */
  readonly close = (): void => {
    if (this.#closed) return;
    this.#closed = true;
    this.#unmark();
    process.removeListener('exit', this.#finish);
    const device = this.#temporary === this.#path;
    try {
      this.#attempt(() => {
        if (!device && !this.#failure) fsyncSync(this.#file);
        closeSync(this.#file);
        if (!device && !this.#failure) renameSync(this.#temporary, this.#path);
      });
      if (this.#failure) throw this.#failure;
    } catch (error) {
      if (!device) rmSync(this.#temporary, { force: true });
      throw error;
    }
  };

  #attempt<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw notWritten(this.#path, (error as NodeJS.ErrnoException).code ?? String(error));
    }
  }
}

const notWritten = (path: string, why: string): LanewiseError =>
  new LanewiseError('NotWritten', `${path} cannot be written: ${why}`);
