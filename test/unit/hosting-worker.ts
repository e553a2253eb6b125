/** A thread with a pretended engine: what it is asked to do, it does. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort } from 'node:worker_threads';
import { FormatError, LanewiseError } from '../../src/errors.ts';
import { answer, type Call, Moved } from '../../src/hosting/answer.ts';
import type { CallerMessage } from '../../src/hosting/messages.ts';

const port = parentPort!;
let calls = 0;

answer(
  {
    post: (messages, transfer) => port.postMessage(messages, [...transfer]),
    listen: (onMessage) => void port.on('message', (message: CallerMessage) => onMessage(message)),
  },
  {
    count: () => ++calls,
    echo: (_, value) => value,
    fail(_, kind: string) {
      if (kind === 'format') throw new FormatError('HeaderTooSmall', 'a.gguf', 'too short', { offset: 8, key: 'x' });
      if (kind === 'text') throw 'a text';
      if (kind === 'abort') throw new DOMException('no more', 'AbortError');
      throw new TypeError('not that', { cause: new LanewiseError('NumericError', 'inside') });
    },
    async stream(call: Call, turns: number, perTurn: number) {
      for (let turn = 0; turn < turns; turn++) {
        for (let n = 0; n < perTurn; n++) call.emit([turn, n]);
        await sleep(0);
      }
      return turns * perTurn;
    },
    async wait(call: Call) {
      await new Promise((_, reject) => call.signal.addEventListener('abort', () => reject(call.signal.reason)));
    },
    function: () => () => {},
    move() {
      const values = new Float32Array(1000).fill(2);
      return new Moved({ values }, [values.buffer]);
    },
    block(_, ms: number) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
      return ms;
    },
    exit: () => process.exit(3),
    throwLater: () =>
      void setTimeout(() => {
        throw new Error('nobody caught this');
      }),
    fillHeap() {
      const kept: unknown[] = [];
      for (;;) kept.push(new Array(1e5).fill(kept.length));
    },
    async dispose() {},
  },
);
