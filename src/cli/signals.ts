/** Removes unfinished files when a signal ends the process. */
import { removeUnfinished, watchUnfinished } from '../node.ts';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * While a file is unfinished, a signal that ends the process removes it first. SIGINT is left to the command if it has its
 * own listener. Unfinished downloads are kept: the next run resumes them.
 */
export function removeUnfinishedAtSignals(): void {
  const end = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGINT' && process.listenerCount(signal) > 1) return;
    removeUnfinished();
    process.removeListener(signal, end);
    process.kill(process.pid, signal);
  };
  watchUnfinished((some) => {
    for (const signal of signals) {
      if (some) process.prependListener(signal, end);
      else process.removeListener(signal, end);
    }
  });
}
