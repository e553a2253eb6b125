/** Formats measured quantities for people. */

/** `0.15ms`, `8.1ms`, `137ms`: about three significant digits. */
export function formatMilliseconds(ms: number): string {
  return `${ms.toFixed(ms < 1 ? 2 : ms < 100 ? 1 : 0)}ms`;
}

/** `12.3 GB/s`, for bytes moved in `ms` milliseconds. */
export function formatBandwidth(bytes: number, ms: number): string {
  return `${ms > 0 ? (bytes / ms / 1e6).toFixed(1) : '-'} GB/s`;
}

/** `978 B`, `38.6 kB`, `132.4 MB`, `1.06 GB`: powers of 1000. */
export function formatBytes(bytes: number): string {
  if (bytes < 1e3) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}
