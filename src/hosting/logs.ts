/** The log of a hosted engine: its records are sent to the caller, at the levels that the caller wants. */
import { enabledLevels, type Logger, type LogLevel, levelOrder, useLoggers, writeRecord } from '../profile/log.ts';
import type { EngineMessage, LogLevels } from './messages.ts';

/** For the engine's thread. @returns a function that sets the levels that the caller wants */
export function receiveLevels(
  send: (category: string, level: string, message: string) => void,
): (levels: LogLevels) => void {
  let wanted: LogLevels = {};
  useLoggers((category): Logger => {
    const isEnabledFor = (level: LogLevel): boolean => {
      const lowest = wanted[category];
      return lowest !== undefined && levelOrder.indexOf(level) >= levelOrder.indexOf(lowest as LogLevel);
    };
    const write = (level: LogLevel) => (message: string) => {
      if (isEnabledFor(level)) send(category, level, message);
    };
    return {
      isEnabledFor,
      trace: write('trace'),
      debug: write('debug'),
      info: write('info'),
      warn: write('warning'),
      error: write('error'),
    };
  });
  return (levels) => {
    wanted = levels;
  };
}

/** For the caller's thread. */
export const wantedLevels = (): LogLevels => enabledLevels();

export const passOn = ({ category, level, message }: Extract<EngineMessage, { kind: 'log' }>): void =>
  writeRecord(category, level as LogLevel, message);
