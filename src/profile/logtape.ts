/**
 * Sends the log to LogTape, in which applications configure where it goes; `configureLogging` does it for them.
 */
import { configureSync, getLogger, type LogRecord, type Sink } from '@logtape/logtape';
import { OptionError } from '../errors.ts';
import { flushLog, type LogLevel, useLoggers } from './log.ts';

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
  useLogTape();
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

export const useLogTape = (): void => useLoggers((category) => getLogger(category.split('.')));
