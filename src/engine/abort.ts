/** Callbacks by signal. Each signal has one listener, because platforms warn about many listeners on one signal. */

const told = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `run` when the signal is aborted, at once if it already is. @returns a function that cancels the callback */
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
