/** Who is told when a signal is aborted. One listener stands for all: platforms warn of many on one signal. */

const told = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `run` when the signal is aborted, at once where it is. @returns what ends the wait */
export function onAbort(signal: AbortSignal | undefined, run: () => void): () => void {
  if (!signal) return () => {};
  if (signal.aborted) {
    run();
    return () => {};
  }
  let runs = told.get(signal);
  if (!runs) {
    const all = new Set<() => void>();
    runs = all;
    told.set(signal, all);
    const listener = (): void => {
      told.delete(signal);
      for (const each of [...all]) each();
    };
    signal.addEventListener('abort', listener, { once: true });
  }
  const own = runs;
  own.add(run);
  return () => own.delete(run);
}
