/** Server-sent events, written as fast as the client reads them. */

/** One event: its data, or a comment that keeps the connection alive. */
export type SseEvent = { readonly event?: string; readonly data: string } | { readonly comment: string };

const textOf = (event: SseEvent): string => {
  if ('comment' in event) return `: ${event.comment}\n\n`;
  return `${event.event === undefined ? '' : `event: ${event.event}\n`}data: ${event.data}\n\n`;
};

/**
 * The body of an answer. An event is asked for when the client has taken those before. When the client has gone, the
 * generator is ended.
 */
export function sseBody(events: AsyncGenerator<SseEvent, void, undefined>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream(
    {
      async pull(controller) {
        const { done, value } = await events.next();
        if (done) controller.close();
        else controller.enqueue(encoder.encode(textOf(value)));
      },
      async cancel() {
        await events.return();
      },
    },
    { highWaterMark: 0 },
  );
}

export const sseHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
} as const;
