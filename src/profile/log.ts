/**
 * The log: hierarchical categories below `lanewise`, directives as in RUST_LOG, one line per event.
 *
 *   lanewise.generator  debug  prefill, each decode step
 *   lanewise.model      debug  each forward by phase
 *   lanewise.layer      debug  each layer of a forward
 *   lanewise.kernel     trace  each step with shape and rate; warnings about kernels that were replaced
 *
 * The library only writes to these categories; an application may configure LogTape itself instead of calling
 * `configureLogging`.
 */
import { configureSync, getLogger, type Logger, type LogLevel, type LogRecord, type Sink } from '@logtape/logtape';
import { OptionError } from '../errors.ts';
import { isLayer, phasesOf, type ScopedStep, type ScopeTime, type StepMilliseconds } from './scopes.ts';
import { formatBandwidth, formatMilliseconds } from './units.ts';

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

/** Category (`lanewise.kernel`) -> lowest level that is written; null: nothing. */
export type Directives = ReadonlyMap<string, LogLevel | null>;

/**
 * Reads `lanewise=info,lanewise.kernel=trace`, a bare level (`debug`, `off`) or a bare category (all its levels).
 * Later directives win. Without any, warnings and errors are written.
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
 * Sends the log to `write`, which gets whole lines with their line feeds. What one turn of the event loop logs arrives
 * in one piece: a write to a terminal costs as much as many lines.
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

/** LogTape disposes its sinks when the process exits, which writes what is left. */
function lineSink(write: (text: string) => void): Sink & Disposable {
  let waiting = '';
  const flush = (): void => {
    if (waiting !== '') write(waiting);
    waiting = '';
  };
  const sink = (record: LogRecord): void => {
    if (waiting === '') queueMicrotask(flush);
    waiting += `${lineOf(record)}\n`;
  };
  return Object.assign(sink, { [Symbol.dispose]: flush });
}

function lineOf({ category, level, message }: LogRecord): string {
  const text = message.join('');
  if (text.startsWith('[perf] ')) return text;
  return `[${level === 'warning' ? 'warn' : level}] ${category.join('.')}: ${text}`;
}

const loggers = new Map<string, Logger>();

/** The logger of a dotted category. */
export function loggerOf(category: string): Logger {
  let logger = loggers.get(category);
  if (!logger) loggers.set(category, (logger = getLogger(category.split('.'))));
  return logger;
}

/** Whether anybody reads this: ask before measuring or building text. */
export function wants(category: string, level: LogLevel): boolean {
  return loggerOf(category).isEnabledFor(level);
}

/** Whether a forward's steps must be timed for the log. */
export function wantsForward(): boolean {
  return wants('lanewise.model', 'debug') || wants('lanewise.layer', 'debug') || wants('lanewise.kernel', 'trace');
}

/** `[perf] generator.prefill tokens=5 12.3ms` */
export function logPrefill(tokens: number, ms: number): void {
  if (!wants('lanewise.generator', 'debug')) return;
  loggerOf('lanewise.generator').debug(`[perf] generator.prefill tokens=${tokens} ${formatMilliseconds(ms)}`);
}

/** `[perf] generator.decode_step token=4 model=8.1ms sample=0.20ms total=8.3ms` */
export function logDecodeStep(token: number, modelMs: number, sampleMs: number): void {
  if (!wants('lanewise.generator', 'debug')) return;
  const times = pairs({ model: modelMs, sample: sampleMs, total: modelMs + sampleMs });
  loggerOf('lanewise.generator').debug(`[perf] generator.decode_step token=${token} ${times}`);
}

/** What a step did, for its trace line. */
export interface StepWork {
  /** `q8_0 [1x768]x[3072x768]` */
  readonly text: string;
  /** Bytes that it had to read and write. */
  readonly bytes: number;
}

/**
 * The lines of one forward: phases, layers (debug), steps (trace).
 * @param describe called per step only when steps are written
 */
export function logForward(
  tree: ScopeTime,
  steps: readonly ScopedStep[],
  times: readonly StepMilliseconds[],
  describe: (step: number) => StepWork,
): void {
  if (wants('lanewise.kernel', 'trace')) {
    const logger = loggerOf('lanewise.kernel');
    for (const { step, ms } of times) {
      const { text, bytes } = describe(step);
      const rate = formatBandwidth(bytes, ms);
      logger.trace(`[perf] kernel.${steps[step]!.op} ${text} ${formatMilliseconds(ms)} (${rate})`);
    }
  }
  if (wants('lanewise.layer', 'debug')) {
    // One record for all layers: a record costs as much as a kernel of a small model.
    const lines = tree.children.filter(isLayer).map(({ path, children }) => {
      const times = pairs(Object.fromEntries(children.map(({ name, ms }) => [name, ms])));
      return `[perf] ${path}.forward ${times}`;
    });
    loggerOf('lanewise.layer').debug(lines.join('\n'));
  }
  if (wants('lanewise.model', 'debug')) {
    loggerOf('lanewise.model').debug(`[perf] model.forward ${pairs({ ...phasesOf(tree) })}`);
  }
}

const pairs = (times: Readonly<Record<string, number>>): string =>
  Object.entries(times)
    .map(([name, ms]) => `${name}=${formatMilliseconds(ms)}`)
    .join(' ');
