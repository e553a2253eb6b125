/** Shares of the time of prefill and decode by kernel, from `lanewise bench --kernels`. */
import { renderTable } from '../../src/cli/table.ts';
import type { Report } from './report-format.ts';

/** Prefix of the names of the parts that are used here. */
export const SHARES = 'shares ';

interface BenchResult {
  readonly kernels: readonly {
    readonly work: string;
    readonly kernel: string;
    readonly ms: number;
    readonly share: number;
    readonly rate: number | null;
    readonly of_roof: number | null;
  }[];
}

/** Kinds below this share are left out. */
const SMALL = 0.01;

/** One table of all models; empty if none was measured. */
export function sharesTable({ parts }: Report): string[] {
  const percent = (share: number): string => `${(share * 100).toFixed(0)} %`;
  const rows = Object.entries(parts)
    .filter(([part, { result }]) => part.startsWith(SHARES) && result !== undefined)
    .flatMap(([part, { result }]) =>
      (result as readonly BenchResult[]).flatMap(({ kernels }) =>
        kernels
          .filter(({ share }) => share >= SMALL)
          .map(({ work, kernel, ms, share, rate, of_roof }) => [
            `${part.slice(SHARES.length)}, ${work}`,
            kernel,
            ms.toFixed(2),
            percent(share),
            ...(rate === null ? [] : [`${(rate / 1e9).toFixed(1)} ${work === 'decode' ? 'GB/s' : 'GOP/s'}`]),
            ...(of_roof === null ? [] : [percent(of_roof)]),
          ]),
      ),
    );
  if (rows.length === 0) return [];
  const right = ['ms', 'Share', 'Rate', 'Of the roof'].map((title) => ({ title, align: 'right' as const }));
  return [renderTable([{ title: 'Prompt of 512, steps behind it' }, { title: 'Kernel' }, ...right], rows)];
}
