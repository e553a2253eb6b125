/** The server on Node: listens, and ends without breaking off answers. */
import type { AddressInfo } from 'node:net';
import { serve } from '@hono/node-server';
import type { Hono } from 'hono';
import { OptionError } from '../errors.ts';

export interface Listening {
  /** `http://127.0.0.1:8080` */
  readonly url: string;
  /** Takes no more connections, and resolves when all answers have ended, after `timeoutMs` at the latest. */
  drain(timeoutMs: number): Promise<void>;
}

/** @throws OptionError if nobody can listen there */
export function listen(
  app: Hono,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<Listening> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: host, port });
    server.once('error', (error: NodeJS.ErrnoException) => {
      const what =
        error.code === 'EADDRINUSE' ? 'a port that nobody listens on' : `one to listen on (${error.message})`;
      reject(new OptionError('port', what, port));
    });
    server.once('listening', () => {
      const { port: found } = server.address() as AddressInfo;
      const name = host.includes(':') ? `[${host}]` : host;
      resolve({
        url: `http://${name}:${found}`,
        drain: (timeoutMs) =>
          new Promise((done) => {
            const timer = setTimeout(() => {
              if ('closeAllConnections' in server) server.closeAllConnections();
            }, timeoutMs);
            server.close(() => {
              clearTimeout(timer);
              done();
            });
            if ('closeIdleConnections' in server) server.closeIdleConnections();
          }),
      });
    });
  });
}
