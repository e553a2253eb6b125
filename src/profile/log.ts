/**
 * The log: hierarchical categories below `lanewise`, directives as in RUST_LOG, one line per event.
 *
 *   lanewise.generator  debug  prefill, each decode step
 *   lanewise.model      debug  phases of each forward
 *   lanewise.layer      debug  layers of each forward
 *   lanewise.kernel     trace  steps of each forward, with shape and rate
 *
 * The library only writes to these categories. Its entry sends them to LogTape (logtape.ts), the thread of a hosted
 * engine to its caller.
 */
import { isLayer, phasesOf, type ScopedStep, type ScopeTime, type StepMilliseconds } from './scopes.ts';
import { formatBandwidth, formatMilliseconds } from './units.ts';

/** Same as LogTape's type. Declared here because LogTape's declarations need the types of browsers or of Node. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warning' | 'error' | 'fatal';

/** Least severe first. */
export const levelOrder: readonly LogLevel[] = ['trace', 'debug', 'info', 'warning', 'error', 'fatal'];

const categories = ['generator', 'model', 'layer', 'kernel'].map((name) => `lanewise.${name}`);

/** The methods of LogTape's logger that are used here. */
export type Logger = Readonly<Record<'trace' | 'debug' | 'info' | 'warn' | 'error', (message: string) => void>> & {
  isEnabledFor(level: LogLevel): boolean;
};

const write = (): void => {};
const silent: Logger = {
  ...{ trace: write, debug: write, info: write, warn: write, error: write },
  isEnabledFor: () => false,
};

const loggers = new Map<string, Logger>();
let create: (category: string) => Logger = () => silent;

/** Sets the loggers of all later records. @param logger makes the logger of a dotted category */
export function useLoggers(logger: (category: string) => Logger): void {
  create = logger;
  loggers.clear();
}

/** The logger of a dotted category. */
function loggerAt(category: string): Logger {
  let logger = loggers.get(category);
  if (!logger) loggers.set(category, (logger = create(category)));
  return logger;
}

/** Whether events of this category and level are written. Call before measuring or building text. */
export function wants(category: string, level: LogLevel): boolean {
  return loggerAt(category).isEnabledFor(level);
}

/** Lowest level that is written, of each category that writes anything. */
export function enabledLevels(): Readonly<Record<string, LogLevel>> {
  const levels: Record<string, LogLevel> = {};
  for (const category of categories) {
    const lowest = levelOrder.find((level) => wants(category, level));
    if (lowest !== undefined) levels[category] = lowest;
  }
  return levels;
}

/** Writes a record that another thread made. */
export function writeRecord(category: string, level: LogLevel, message: string): void {
  const logger = loggerAt(category);
  if (level === 'warning') logger.warn(message);
  else logger[level === 'fatal' ? 'error' : level](message);
}

/** The granularity at which the log needs a forward timed; undefined if it needs no times. */
export function wantsForward(): 'scopes' | 'steps' | undefined {
  if (wants('lanewise.kernel', 'trace')) return 'steps';
  return wants('lanewise.model', 'debug') || wants('lanewise.layer', 'debug') ? 'scopes' : undefined;
}

/** Longest delay of an event. */
const PATIENCE_MS = 100;
let waiting: (() => void)[] = [];
let since = 0;
let timer: ReturnType<typeof setTimeout> | undefined;

/**
 * Delays an event, so that events are logged in groups: logged between two tokens, with the log's code and data out of the
 * processor's caches, an event takes several times as long.
 */
function later(event: () => void): void {
  waiting.push(event);
  if (timer === undefined) {
    since = performance.now();
    timer = setTimeout(flushLog, PATIENCE_MS);
  } else if (performance.now() - since > PATIENCE_MS) {
    // The timer does not fire while a generation occupies the event loop.
    flushLog();
  }
}

/** Logs all delayed events. */
export function flushLog(): void {
  clearTimeout(timer);
  timer = undefined;
  const events = waiting;
  waiting = [];
  for (const event of events) event();
}

/** `[perf] generator.prefill tokens=5 12.3ms` */
export function logPrefill(tokens: number, ms: number): void {
  if (!wants('lanewise.generator', 'debug')) return;
  later(() =>
    loggerAt('lanewise.generator').debug(`[perf] generator.prefill tokens=${tokens} ${formatMilliseconds(ms)}`),
  );
}

/** `[perf] generator.decode_step token=4 model=8.1ms sample=0.20ms total=8.3ms` */
export function logDecodeStep(token: number, modelMs: number, sampleMs: number): void {
  if (!wants('lanewise.generator', 'debug')) return;
  const times = { model: modelMs, sample: sampleMs, total: modelMs + sampleMs };
  later(() => loggerAt('lanewise.generator').debug(`[perf] generator.decode_step token=${token} ${pairs(times)}`));
}

/** Data of a step's line in the trace. */
export interface StepWork {
  /** `q8_0 [1x768]x[3072x768]` */
  readonly text: string;
  /** Bytes read and written. */
  readonly bytes: number;
}

/**
 * Logs one forward: phases and layers (debug), steps (trace).
 * @param describe called for each step, only if steps are written
 */
export function logForward(
  tree: ScopeTime,
  steps: readonly ScopedStep[],
  times: readonly StepMilliseconds[],
  describe: (step: number) => StepWork,
): void {
  if (wantsForward()) later(() => writeForward(tree, steps, times, describe));
}

function writeForward(...[tree, steps, times, describe]: Parameters<typeof logForward>): void {
  if (wants('lanewise.kernel', 'trace')) {
    const logger = loggerAt('lanewise.kernel');
    for (const { step, ms } of times) {
      const { text, bytes } = describe(step);
      const rate = formatBandwidth(bytes, ms);
      logger.trace(`[perf] kernel.${steps[step]!.op} ${text} ${formatMilliseconds(ms)} (${rate})`);
    }
  }
  // One record for all layers: a record takes as long as a kernel of a small model.
  const layers = tree.children.filter(isLayer).map(layerLine);
  loggerAt('lanewise.layer').debug(layers.join('\n'));
  loggerAt('lanewise.model').debug(`[perf] model.forward ${pairs({ ...phasesOf(tree) })}`);
}

const layerLine = ({ path, children }: ScopeTime): string =>
  `[perf] ${path}.forward ${pairs(Object.fromEntries(children.map(({ name, ms }) => [name, ms])))}`;

const pairs = (times: Readonly<Record<string, number>>): string =>
  Object.entries(times)
    .map(([name, ms]) => `${name}=${formatMilliseconds(ms)}`)
    .join(' ');
