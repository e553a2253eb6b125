/** Goals of many callers of one engine, from bench/callers.ts. */
import type { CallersReport } from '../callers-report.ts';
import type { GoalRow } from './goal-row.ts';

const row = (work: string, goal: string, measured: string, met: boolean): GoalRow => ({
  work,
  goal,
  measured,
  spread: '',
  of_roof: '',
  met,
});

const ms = (value: number): string => `${value.toFixed(1)} ms`;
const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

export function callersRows({ model, batch, gap, turn, cancel, loop, hosting, restore }: CallersReport): GoalRow[] {
  const rows: GoalRow[] = [];
  const add = (work: string, goal: string, measured: string, met: boolean): void =>
    void rows.push(row(`${work}, ${model}`, goal, measured, met));
  if (loop)
    add(
      'event loop of the caller while 512 tokens are read, then decoded',
      'delay p99 10 ms, max 50 ms',
      `p99 ${ms(loop.p99Ms)}, max ${ms(loop.maxMs)}`,
      loop.p99Ms <= 10 && loop.maxMs <= 50,
    );
  if (batch)
    add(
      '8 calls at once against one batch of 8',
      '95 % of its tokens per second',
      `${percent(batch.ratio)}: ${batch.callsPerSecond.toFixed(1)} and ${batch.batchPerSecond.toFixed(1)} tokens/s`,
      batch.ratio >= 0.95,
    );
  if (hosting)
    add(
      'engine in a thread of its own against inline',
      'decode within 2 %, first token within 5 ms',
      `decode ${hosting.decodeRatio.toFixed(3)}x the time, first token ${ms(hosting.firstTokenMs)} later`,
      hosting.decodeRatio <= 1.02 && hosting.firstTokenMs <= 5,
    );
  if (gap) {
    const limit = Math.max(2.5 * gap.medianMs, 120);
    add(
      'gap between tokens while another reads a long prompt',
      `p99 ${ms(limit)} (2.5 medians, at least 120 ms)`,
      `p99 ${ms(gap.p99Ms)}, median ${ms(gap.medianMs)}, max ${ms(gap.maxMs)}`,
      gap.p99Ms <= limit,
    );
    add(
      'prompt read meanwhile',
      '70 % of alone',
      `${percent(gap.share)}: ${gap.promptPerSecond.toFixed(1)} tokens/s`,
      gap.share >= 0.7,
    );
    add(
      'first token of 50 tokens that come meanwhile',
      '3 steps and what it takes alone',
      `${ms(gap.firstMs)}; alone ${ms(gap.ownMs)}, steps of ${ms(gap.stepMs)}: ${gap.stepsWaited.toFixed(1)} steps`,
      gap.stepsWaited <= 3,
    );
  }
  if (turn) {
    const cached = Math.min(...turn.rows.map((each) => each.cached));
    add(
      'second turn: 3,000 tokens known, 50 new',
      'first token at 5 % of the cold one, 2,944 cached',
      `${percent(turn.share)}, ${cached} cached`,
      turn.share <= 0.05 && cached >= 2944,
    );
  }
  if (cancel) {
    const worst = Math.max(cancel.queue, cancel.prefill, cancel.decode);
    add(
      'cancel to pages freed, p99',
      `one step (${ms(cancel.stepMs)})`,
      `queue ${ms(cancel.queue)}, prefill ${ms(cancel.prefill)}, decode ${ms(cancel.decode)}`,
      worst <= cancel.stepMs,
    );
  }
  if (restore)
    add(
      '3,000 tokens restored from a file',
      '1 GB/s',
      `${restore.gigabytesPerSecond.toFixed(2)} GB/s, ${restore.cachedTokens} cached`,
      restore.gigabytesPerSecond >= 1,
    );
  return rows;
}
