/** A progress line on a terminal. Nothing is written to files and pipes. */
import { formatBytes } from '../profile/units.ts';

/** The part of a terminal stream that is used; `process.stderr` fits. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export interface Progress {
  /** @param done @param total in the unit of the bar; a total of Infinity means unknown */
  update(done: number, total: number): void;
  /** Clears the line. */
  end(): void;
}

export interface ProgressOptions {
  readonly unit?: Unit;
  /** A clock in milliseconds, from any origin. */
  readonly now?: () => number;
}

type Unit = 'bytes' | 'tokens' | 'measurements';

const rates: Readonly<Record<Unit, string>> = { bytes: '/s', tokens: ' tok/s', measurements: '/s' };

/** Work shorter than this shows no progress. */
const patienceMs = 1000;
const redrawMs = 100;
const clearLine = '\r\x1b[2K';
const barWidth = 24;

export function createProgress(stream: ProgressStream, label: string, options: ProgressOptions = {}): Progress {
  const { unit = 'bytes', now = () => performance.now() } = options;
  if (!stream.isTTY) return { update() {}, end() {} };
  const start = now();
  let drawnAt = Number.NEGATIVE_INFINITY;
  return {
    update(done, total) {
      const time = now();
      if (time - start < patienceMs || time - drawnAt < redrawMs) return;
      drawnAt = time;
      const line = `${label} ${progressText(done, total, (time - start) / 1e3, unit)}`;
      // Cut to the terminal's width: a line that wraps cannot be cleared.
      stream.write(clearLine + line.slice(0, (stream.columns ?? 80) - 1));
    },
    end() {
      if (drawnAt > start) stream.write(clearLine);
      drawnAt = Number.NEGATIVE_INFINITY;
    },
  };
}

/** `[#####-----]  48% 1.02 GB of 2.11 GB, 850.0 MB/s, 1 s left` */
function progressText(done: number, total: number, seconds: number, unit: Unit): string {
  const rate = done / seconds;
  const amount = (n: number): string => (unit === 'bytes' ? formatBytes(Math.round(n)) : amountOf(n, unit));
  const per = rates[unit];
  if (total === Number.POSITIVE_INFINITY) return `${amount(done)}, ${amount(rate)}${per}`;
  const share = total > 0 ? Math.min(done / total, 1) : 0;
  const filled = Math.round(share * barWidth);
  const bar = `[${'#'.repeat(filled)}${'-'.repeat(barWidth - filled)}]`;
  const left = rate > 0 ? `, ${Math.ceil(Math.max(total - done, 0) / rate)} s left` : '';
  return `${bar} ${(share * 100).toFixed(0).padStart(3)}% ${amount(done)} of ${amount(total)}, ${amount(rate)}${per}${left}`;
}

/** Measurements may take longer than a second each. */
const amountOf = (n: number, unit: Unit): string =>
  unit === 'measurements' && n < 10 && !Number.isInteger(n) ? n.toFixed(1) : `${Math.round(n)}`;
