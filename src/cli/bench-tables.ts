/** Tables of `lanewise bench` for comparisons and kernels. */
import type { ComparedRow } from '../measure/compare.ts';
import { placeOf } from '../measure/kernel-report.ts';
import type { KernelTime } from '../measure/kernel-times.ts';
import type { TurnRoofs } from '../measure/saved.ts';
import type { Spread } from '../measure/statistics.ts';
import { renderTable } from './table.ts';

/** Kinds of steps below this share of the time are combined in one row. */
const SMALL = 0.01;

/** @param roofs measured limits of the machine, in operations and bytes per second */
export function renderKernels(times: readonly KernelTime[], roofs: TurnRoofs): string {
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
  const cells = (['prefill', 'decode'] as const).flatMap((work) => {
    const rows = times.filter((time) => time.work === work);
    const [large, small] = [rows.filter(({ share }) => share >= SMALL), rows.filter(({ share }) => share < SMALL)];
    const total = (key: 'ms' | 'share'): number => small.reduce((sum, time) => sum + time[key], 0);
    const others = [
      work,
      small.map(({ kernel }) => kernel).join(', '),
      total('ms').toFixed(2),
      percent(total('share')),
    ];
    return [
      ...large.map((time) => {
        const { bytesPerSecond, operationsPerSecond, limit, ofRoof } = placeOf(time, roofs);
        const billions = (rate: number | undefined): string => (rate === undefined ? '' : (rate / 1e9).toFixed(1));
        return [
          ...[work, time.kernel, time.ms.toFixed(2), percent(time.share)],
          ...[billions(bytesPerSecond), billions(operationsPerSecond), limit, percent(ofRoof)],
        ];
      }),
      ...(small.length > 0 ? [others] : []),
    ];
  });
  const right = (title: string) => ({ title, align: 'right' as const });
  return renderTable(
    [
      { title: 'Work' },
      { title: 'Kernel' },
      ...['ms', 'Share', 'GB/s', 'GOP/s'].map(right),
      { title: 'Limit' },
      right('Of the roof'),
    ],
    cells,
  );
}

export function renderAgainst(rows: readonly ComparedRow[]): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const spread = ({ median, low, high }: Spread): string =>
    `${median.toFixed(2)} (${low.toFixed(2)} - ${high.toFixed(2)})`;
  return renderTable(
    [
      { title: 'Policy' },
      { title: 'Work' },
      ...['Before ms', 'Now ms', 'Now / before'].map(right),
      { title: 'Verdict' },
    ],
    rows.map(({ policy, work, before, now, change, verdict }) => [
      policy,
      work,
      spread(before),
      spread(now),
      `${change.ratio.toFixed(3)} (${change.low.toFixed(3)} - ${change.high.toFixed(3)})`,
      verdict,
    ]),
  );
}
