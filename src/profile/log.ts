/**
 * The log: hierarchical categories below `lanewise`, directives as in RUST_LOG, one line per event.
 *
 *   lanewise.generator  debug  prefill, each decode step
 *   lanewise.model      debug  phases of each forward
 *   lanewise.layer      debug  layers of each forward
 *   lanewise.kernel     trace  steps of each forward, with shape and rate
 *
 * The library only writes to these categories. An application may configure LogTape itself instead of calling
 * `configureLogging`.
 */
import { configureSync, getLogger, type LogRecord, type Sink } from '@logtape/logtape';
import { OptionError } from '../errors.ts';
import { isLayer, phasesOf, type ScopedStep, type ScopeTime, type StepMilliseconds } from './scopes.ts';
import { formatBandwidth, formatMilliseconds } from './units.ts';

/** Same as LogTape's type. Declared here because LogTape's declarations need the types of browsers or of Node. */
type LogLevel = 'trace' | 'debug' | 'info' | 'warning' | 'error' | 'fatal';

/** The methods of LogTape's logger that are used here. */
type Logger = Readonly<Record<'trace' | 'debug' | 'info' | 'warn' | 'error', (message: string) => void>> & {
  isEnabledFor(level: LogLevel): boolean;
};

const root = 'lanewise';
const variable = 'LANEWISE_LOG';
const levels: ReadonlyMap<string, LogLevel | null> = new Map([
  ['trace', 'trace'],
  ['debug', 'debug'],
  ['info', 'info'],
  ['warn', 'warning'],
  ['warning', 'warning'],
  ['error', 'error'],
  ['off', null],
]);

/** Category (`lanewise.kernel`) -> lowest level written; null: nothing. */
export type Directives = ReadonlyMap<string, LogLevel | null>;

/**
 * Parses `lanewise=info,lanewise.kernel=trace`, a bare level (`debug`, `off`) or a bare category (all its levels).
 * Later directives override earlier ones. Default: warnings and errors.
 * @throws OptionError for a category outside `lanewise` or an unknown level
 */
export function parseDirectives(text: string | undefined): Directives {
  const directives = new Map<string, LogLevel | null>([[root, 'warning']]);
  for (const part of (text ?? '').split(',')) {
    const directive = part.trim();
    if (directive === '') continue;
    const [category, level] = parseDirective(directive);
    if (level === undefined || !/^lanewise(\.\w+)*$/.test(category)) {
      const known = [...levels.keys()].join(', ');
      throw new OptionError(
        variable,
        `directives such as debug, off or lanewise=info,lanewise.kernel=trace (levels: ${known})`,
        directive,
      );
    }
    directives.set(category, level);
  }
  return directives;
}

function parseDirective(directive: string): [category: string, level: LogLevel | null | undefined] {
  const equals = directive.indexOf('=');
  const level = levels.get(
    directive
      .slice(equals + 1)
      .trim()
      .toLowerCase(),
  );
  if (equals >= 0) return [directive.slice(0, equals).trim(), level];
  return level === undefined ? [directive, 'trace'] : [root, level];
}

/**
 * Sends the log to `write`, which gets whole lines with line feeds. All lines of one turn of the event loop are written
 * in one call, because a write to a terminal is slow.
 * @throws OptionError for invalid directives
 */
export function configureLogging(directives: string | undefined, write: (text: string) => void): void {
  const parsed = parseDirectives(directives);
  configureSync({
    reset: true,
    sinks: { lines: lineSink(write) },
    loggers: [
      ...[...parsed].map(([category, lowestLevel]) => ({
        category: category.split('.'),
        sinks: ['lines' as const],
        parentSinks: 'override' as const,
        lowestLevel,
      })),
      { category: ['logtape', 'meta'], sinks: [], lowestLevel: null },
    ],
  });
}

/** A sink that collects lines. LogTape disposes it when the process exits, which writes the rest. */
function lineSink(write: (text: string) => void): Sink & Disposable {
  let lines = '';
  const flush = (): void => {
    if (lines !== '') write(lines);
    lines = '';
  };
  const sink = (record: LogRecord): void => {
    if (lines === '') queueMicrotask(flush);
    lines += `${lineOf(record)}\n`;
  };
  const dispose = (): void => {
    flushLog();
    flush();
  };
  return Object.assign(sink, { [Symbol.dispose]: dispose });
}

function lineOf({ category, level, message }: LogRecord): string {
  const text = message.join('');
  if (text.startsWith('[perf] ')) return text;
  return `[${level === 'warning' ? 'warn' : level}] ${category.join('.')}: ${text}`;
}

const loggers = new Map<string, Logger>();

/** The logger of a dotted category. */
function loggerAt(category: string): Logger {
  let logger = loggers.get(category);
  if (!logger) loggers.set(category, (logger = getLogger(category.split('.'))));
  return logger;
}

/** Whether events of this category and level are written. Call before measuring or building text. */
export function wants(category: string, level: LogLevel): boolean {
  return loggerAt(category).isEnabledFor(level);
}

/** How finely the log needs a forward timed; undefined: not at all. */
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

/** What a step did, for its line in the trace. */
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
