/** The processor time that Linux allows this process (cgroup), as a number of processors. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

/**
 * The smallest quota of the process's control group and of those above it; undefined: none, or not known.
 * @param root of the file system
 */
export function cpuQuota(root = '/'): number | undefined {
  const groups = path.join(root, 'sys/fs/cgroup');
  const own = textOf(path.join(root, 'proc/self/cgroup'));
  const [, inside = '/'] = /^0::(.*)$/m.exec(own) ?? [];
  const [, older = '/'] = /^\d+:(?:.*,)?cpu(?:,.*)?:(.*)$/m.exec(own) ?? [];
  const quotas = [
    ...upwards(inside).map((folder) => ofVersion2(textOf(path.join(groups, folder, 'cpu.max')))),
    ...['cpu', 'cpu,cpuacct'].flatMap((controller) =>
      upwards(older).map((folder) => ofVersion1(path.join(groups, controller, folder))),
    ),
  ].filter((quota) => quota !== undefined);
  return quotas.length > 0 ? Math.min(...quotas) : undefined;
}

/** A folder and all folders above it, up to the root. In a container the folder may not exist. */
function upwards(folder: string): string[] {
  const parts = folder.split('/').filter((part) => part !== '' && part !== '..');
  return Array.from({ length: parts.length + 1 }, (_, n) => parts.slice(0, n).join('/'));
}

/** `200000 100000`: microseconds in each period; `max 100000`: no quota. */
const ofVersion2 = (text: string): number | undefined => {
  const [, quota, period] = /^(\d+) (\d+)/.exec(text) ?? [];
  return quota === undefined ? undefined : Number(quota) / Number(period);
};

function ofVersion1(folder: string): number | undefined {
  const quota = Number(textOf(path.join(folder, 'cpu.cfs_quota_us')) || -1);
  const period = Number(textOf(path.join(folder, 'cpu.cfs_period_us')));
  return quota > 0 && period > 0 ? quota / period : undefined;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
