/** Serves the sources, with types stripped, to an isolated page; results are posted back. */

import { existsSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { stripTypeScriptTypes } from 'node:module';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A page with one script. Errors before the script runs are posted too. */
const page = (script: string): string => `<!doctype html>
<script>
  const post = (error) => fetch('/result', { method: 'POST', body: JSON.stringify({ error: String(error) }) });
  addEventListener('error', ({ message, target }) => post(message ?? target.src + ' could not be loaded'), true);
  addEventListener('unhandledrejection', ({ reason }) => post(reason));
</script>
<script type="module" src="${script}"></script>`;

type Conditions = string | { readonly [condition: string]: Conditions };

const chosen = (target: Conditions | undefined): string | undefined =>
  typeof target === 'object' ? chosen(target.browser ?? target.import ?? target.default) : target;

/** The file of a bare module name; undefined for names that occur only in comments. */
function resolve(name: string, importer: string): string | undefined {
  const inside = importer.split(path.sep).lastIndexOf('node_modules');
  const [scope, rest] = importer.split(path.sep).slice(inside + 1);
  const owner = name.startsWith('#') ? (scope!.startsWith('@') ? `${scope}/${rest}` : scope!) : name;
  const folder = path.join(root, 'node_modules', owner);
  if (!existsSync(path.join(folder, 'package.json'))) return undefined;
  const { imports, exports, module, main } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
  const file = name.startsWith('#') ? chosen(imports?.[name]) : (chosen(exports?.['.'] ?? exports) ?? module ?? main);
  return file === undefined ? undefined : path.join(folder, file);
}

/** Replaces bare module names by addresses, because import maps do not apply in workers. */
const withAddresses = (source: string, importer: string): string =>
  source.replace(/(from\s*|import\s*\(?\s*)(['"])([#@\w][^'"]*)\2/g, (whole, keyword, quote, name) => {
    const file = resolve(name, importer);
    return file === undefined ? whole : `${keyword}${quote}/${path.relative(root, file)}${quote}`;
  });

/** Scripts by file: pages, workers and threads request the same ones. */
const scripts = new Map<string, Promise<string>>();

function script(file: string): Promise<string> {
  const known = scripts.get(file) ?? readScript(file);
  scripts.set(file, known);
  return known;
}

async function readScript(file: string): Promise<string> {
  // A worker is named by what it is called when built.
  const source = await readFile(file, 'utf8').catch(() => readFile(file.replace(/\.js$/, '.ts'), 'utf8'));
  const isTypeScript = !file.includes('node_modules');
  return withAddresses(isTypeScript ? stripTypeScriptTypes(source) : source, file);
}

export interface BrowserServer {
  readonly origin: string;
  /** The results that the page posted. */
  readonly result: Promise<unknown>;
  close(): void;
}

export interface ServeOptions {
  /** Whether the page may share memory. */
  readonly isolated: boolean;
  /** Files below `/given/`, which a repository `org/stories` of a hub has, too. */
  readonly given?: ReadonlyMap<string, Uint8Array>;
}

const COMMIT = '0123456789abcdef0123456789abcdef01234567';
const GIVEN = new RegExp(`^/(?:given|org/stories/resolve/${COMMIT})/(.+)$`);

/** @param entry script of the page */
export async function serveSources(
  entry: string,
  { isolated, given = new Map() }: ServeOptions,
): Promise<BrowserServer> {
  let post: (value: unknown) => void = () => {};
  const result = new Promise<unknown>((resolve) => {
    post = resolve;
  });
  const headers = isolated
    ? { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' }
    : {};
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname } = new URL(request.url!, 'http://localhost');
    const send = (type: string, body: string | Uint8Array, status = 200, more: Record<string, string> = {}): void => {
      response.writeHead(status, {
        ...headers,
        'content-type': type,
        'cross-origin-resource-policy': 'same-origin',
        ...more,
      });
      response.end(body);
    };
    if (request.method === 'POST') {
      const pieces: Uint8Array[] = [];
      for await (const piece of request) pieces.push(piece as Uint8Array);
      send('text/plain', '');
      post(JSON.parse(Buffer.concat(pieces).toString()));
    } else if (pathname === '/') {
      send('text/html', page(entry));
    } else if (pathname === '/api/models/org/stories/revision/main') {
      const siblings = [...given.keys()].map((rfilename) => ({ rfilename }));
      send('application/json', JSON.stringify({ sha: COMMIT, siblings }));
    } else if (/\.[mc]?[jt]s$/.test(pathname)) {
      send('text/javascript', await script(path.join(root, pathname)));
    } else {
      const bytes = given.get(GIVEN.exec(pathname)?.[1] ?? '') ?? (await readFile(path.join(root, pathname)));
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
      if (!range) return send('application/octet-stream', bytes);
      const [start, end] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
      send('application/octet-stream', bytes.subarray(start, end + 1), 206, {
        'content-range': `bytes ${start}-${end}/${bytes.length}`,
      });
    }
  };
  const server: Server = createServer((request, response) => {
    answer(request, response).catch(() => {
      if (!response.headersSent) response.writeHead(404, headers);
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://localhost:${port}`,
    result,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
