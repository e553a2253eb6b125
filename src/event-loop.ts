/** Turns of the event loop, for loops that would otherwise block it. */

/** Calls whose turn has not come, oldest first. */
const waiting: (() => void)[] = [];
let channel: MessageChannel | undefined;

/**
 * Resolves in a later turn of the event loop, so that timers, aborts, messages and drawing come in between. Browsers clamp
 * nested `setTimeout(0)` to 4 ms, a message to oneself takes microseconds. A pending turn keeps a Node process alive, an
 * idle event loop does not.
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') setImmediate(resolve);
    else if (typeof MessageChannel === 'function') postTurn(resolve);
    else setTimeout(resolve, 0);
  });
}

function postTurn(run: () => void): void {
  if (!channel) {
    channel = new MessageChannel();
    channel.port1.onmessage = () => waiting.shift()?.();
  }
  waiting.push(run);
  channel.port2.postMessage(undefined);
}
