/** `lanewise serve`: answers requests of OpenAI's clients. */
import { basename } from 'node:path';
import type { Command } from 'commander';
import { OptionError } from '../errors.ts';
import { load } from '../node.ts';
import { keyCheck } from '../server/keys.ts';
import { Models, type ServedModel } from '../server/models.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { draftOptions, type LoadFlags, loadOptions } from './generate.ts';
import { modelLine, modelPath } from './models.ts';
import { bytesOf, inFlags, numberOf, reportingLoad, say } from './terminal.ts';

export interface ServeFlags extends LoadFlags, ExplainFlag {
  host: string;
  port: string;
  apiKey?: string[];
  maxBody?: string;
  drainTimeout?: string;
}

export async function serveCommand(given: readonly string[], flags: ServeFlags, version: string): Promise<number> {
  try {
    const port = numberOf('--port', flags.port)!;
    if (!(Number.isInteger(port) && port >= 0 && port < 65536))
      throw new OptionError('--port', 'an integer from 0 to 65535', port);
    const drainSeconds = numberOf('--drain-timeout', flags.drainTimeout) ?? 30;
    // The libraries of the server are loaded by this command only.
    const [{ createApp }, { listen }] = await Promise.all([
      import('../server/app.ts'),
      import('../server/serve-node.ts'),
    ]);
    const interrupt = new AbortController();
    const served: ServedModel[] = [];
    try {
      for (const root of given.length > 0 ? given : [undefined]) served.push(await loadServed(root, flags, interrupt));
      let draining = false;
      const app = createApp({
        models: new Models(served),
        version,
        mayAsk: flags.apiKey && keyCheck(flags.apiKey),
        maxBodyBytes: bytesOf('--max-body', flags.maxBody) ?? 32e6,
        onBug: (error) => say(`bug: ${error instanceof Error ? error.stack : String(error)}`),
        draining: () => draining,
      });
      const server = await listen(app, { host: flags.host, port });
      say(`listening on ${server.url}; try ${server.url}/v1/models`);
      await signalled();
      draining = true;
      say('ending: answers that have begun are finished');
      await server.drain(drainSeconds * 1000);
      return 0;
    } finally {
      for (const { model } of served) await model.dispose();
    }
  } catch (error) {
    throw inFlags(error);
  }
}

async function loadServed(
  root: string | undefined,
  flags: ServeFlags,
  { signal }: AbortController,
): Promise<ServedModel> {
  const path = await modelPath(root);
  const loading = reportingLoad({ ...(await loadOptions(flags, signal)), ...(await draftOptions(flags)) });
  const model = await load(path, { ...loading.options, inline: false }).finally(loading.end);
  const name = root ?? basename(path);
  say(`${name}: ${modelLine(model.description)}`);
  sayExplanations(() => model.explain(), flags);
  return { name, root: name, model, created: Math.floor(Date.now() / 1000) };
}

const signalled = (): Promise<void> =>
  new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => resolve());
  });

/** Adds the command's own options. */
export const addServeFlags = (command: Command): Command =>
  command
    .argument('[model...]', 'folders, files or ids of the hub; default: the embedded model')
    .option('--host <address>', 'address to listen on; 0.0.0.0 for other machines too', '127.0.0.1')
    .option('--port <n>', 'port to listen on; 0: any free one', '8080')
    .option('--api-key <key...>', 'keys that clients must give (default: none is needed)')
    .option('--max-body <bytes>', 'most bytes of a request (default: 32MB)')
    .option('--drain-timeout <s>', 'seconds that answers may take to end after SIGTERM (default: 30)');
