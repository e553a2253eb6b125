/** Tables of `lanewise bench` for comparisons and kernels. */
import type { ComparedRow } from '../measure/compare.ts';
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
    const unit = work === 'decode' ? 'GB/s' : 'GOP/s';
    return [
      ...large.map(({ kernel, ms, share, rate, roof }) => [
        ...[work, kernel, ms.toFixed(2), percent(share)],
        ...(rate === undefined ? [] : [`${(rate / 1e9).toFixed(1)} ${unit}`, percent(rate / roofs[roof])]),
      ]),
      ...(small.length > 0 ? [others] : []),
    ];
  });
  const right = ['ms', 'Share', 'Rate', 'Of the roof'].map((title) => ({ title, align: 'right' as const }));
  return renderTable([{ title: 'Work' }, { title: 'Kernel' }, ...right], cells);
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
