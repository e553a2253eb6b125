/** Random schedules over golden models, shrunk to a small one where a reply is not what it should be. */
import fc from 'fast-check';
import { References } from './reference.ts';
import { type Figures, type OracleModel, Play } from './run.ts';
import { kept, type Schedule, schedules } from './schedule.ts';
import { guessAlways, openGolden } from './stage.ts';

/** Grouped queries, a sliding window, LongRoPE (whose limit of 32 tokens most prompts cross), a mixture of experts. */
const models = ['llama-gqa-f16', 'mistral-window', 'phi3-longrope', 'mixtral'] as const;

export interface OracleOptions {
  readonly schedules: number;
  readonly seed?: number | undefined;
  /** Leave out models in two threads, which a busy machine makes slow. */
  readonly oneThread?: boolean | undefined;
  readonly onSchedule?: ((done: number) => void) | undefined;
}

export interface OracleReport {
  readonly schedules: number;
  readonly failed: boolean;
  /** The smallest schedule that fails, why, and how to run it again. */
  readonly message?: string;
  readonly figures: Figures;
}

/** Each model in one thread, one in two as well; replies of both must be those of one thread. */
async function openModels(oneThread: boolean): Promise<{ list: OracleModel[]; close(): Promise<void> }> {
  const list: OracleModel[] = [];
  for (const name of models) {
    const one = await openGolden(name, 1);
    const references = new References(one);
    list.push({ golden: one, references });
    if (name === 'mistral-window' && !oneThread) list.push({ golden: await openGolden(name, 2), references });
  }
  const close = async (): Promise<void> => {
    for (const { golden } of list) await golden.backend.dispose();
  };
  return { list, close };
}

export async function runOracle({
  schedules: count,
  seed,
  oneThread,
  onSchedule,
}: OracleOptions): Promise<OracleReport> {
  const { list, close } = await openModels(oneThread === true);
  const figures: Figures = {};
  let done = 0;
  const asBefore = guessAlways();
  try {
    const property = fc.asyncProperty(schedules(list.length), async (schedule: Schedule) => {
      await new Play(list[schedule.model]!, schedule, figures).run();
      onSchedule?.(++done);
    });
    const details = await fc.check(property, {
      numRuns: count,
      examples: kept.map((schedule): [Schedule] => [schedule]),
      ...(seed !== undefined && { seed }),
      endOnFailure: false,
    });
    const references = new Set(list.map((model) => model.references));
    figures['references computed'] = [...references].reduce((sum, { size }) => sum + size, 0);
    const { errorInstance } = details;
    const stack = errorInstance instanceof Error ? errorInstance.stack : errorInstance;
    const message = details.failed ? `${fc.defaultReportMessage(details)}\n${stack}` : undefined;
    return { schedules: details.numRuns, failed: details.failed, figures, ...(message && { message }) };
  } finally {
    asBefore();
    await close();
  }
}
