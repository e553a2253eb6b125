/** Size of this machine's last-level cache. */
import { readdirSync, readFileSync } from 'node:fs';

const FOLDER = '/sys/devices/system/cpu/cpu0/cache';

/** Bytes, as the operating system says; undefined where it does not. */
export function lastLevelCache(folder = FOLDER): number | undefined {
  try {
    const sizes = readdirSync(folder).flatMap((entry) =>
      entry.startsWith('index') ? [sizeIn(`${folder}/${entry}`)] : [],
    );
    return sizes.length > 0 ? Math.max(...sizes) : undefined;
  } catch {
    return undefined;
  }
}

function sizeIn(folder: string): number {
  const [, count, unit = ''] = /^(\d+)([KMG]?)/.exec(readFileSync(`${folder}/size`, 'utf8').trim()) ?? [];
  return Number(count ?? 0) * 1024 ** ['', 'K', 'M', 'G'].indexOf(unit);
}
