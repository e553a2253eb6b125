/** Lets long loops give way to the event loop. */

/** Pending calls, oldest first. */
const waiting: (() => void)[] = [];
let channel: MessageChannel | undefined;

/**
 * Resolves in a later turn of the event loop, so that timers, aborts, messages and drawing run in between. Uses a message
 * channel (microseconds) because browsers clamp nested `setTimeout(0)` to 4 ms. A pending call keeps a Node process alive;
 * the channel itself does not.
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
