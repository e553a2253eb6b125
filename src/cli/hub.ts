/** `lanewise download | list | remove | verify`: manages the cache of the hub's models. */
import { HubError } from '../errors.ts';
import { listModels, removeModel } from '../hub/cache.ts';
import { chooseFiles } from '../hub/choice.ts';
import { download } from '../hub/download.ts';
import { modelAt } from '../hub/model.ts';
import { parseHubId, revisionOf } from '../hub/names.ts';
import { hubSettings } from '../hub/settings.ts';
import { verifyModel } from '../hub/verify.ts';
import { formatBytes } from '../profile/units.ts';
import { createProgress } from './progress.ts';
import { renderTable } from './table.ts';
import { print, say } from './terminal.ts';

export interface DownloadFlags {
  revision?: string;
  include?: string[];
  exclude?: string[];
  json?: boolean;
}

/** Runs work with a progress line. Ctrl-C ends it; received bytes are kept. */
async function interruptible<T>(
  label: string,
  work: (options: { signal: AbortSignal; onProgress: (done: number, total: number) => void }) => Promise<T>,
): Promise<T> {
  const interrupt = new AbortController();
  const stop = (): void =>
    interrupt.abort(Object.assign(new Error('interrupted; run the command again to resume'), { code: 'Interrupted' }));
  const progress = createProgress(process.stderr, label);
  process.once('SIGINT', stop);
  try {
    return await work({ signal: interrupt.signal, onProgress: (done, total) => progress.update(done, total) });
  } finally {
    process.removeListener('SIGINT', stop);
    progress.end();
  }
}

export async function downloadCommand(text: string, flags: DownloadFlags): Promise<number> {
  const settings = await hubSettings();
  const id = parseHubId(text, settings.endpoint) ?? { repository: text, file: undefined };
  const { include, exclude } = flags;
  const start = performance.now();
  const { folder, commit, files, fetched, skipped } = await interruptible('download', (options) => {
    const all = { ...options, settings, revision: revisionOf(id, flags.revision), include, exclude };
    if (id.tag === undefined && id.file === undefined) return download(id.repository, all);
    return download(id.repository, all, async (remote, read) => {
      const paths = remote.map(({ path }) => path);
      // A single file of any kind; all parts of a split model; the folder or quantization of a tag.
      const named = id.file !== undefined && !/\.gguf$/i.test(id.file) ? [id.file] : undefined;
      const chosen = named ?? (await chooseFiles(id, paths, read)).files;
      const missing = chosen.find((path) => !paths.includes(path));
      if (missing !== undefined) throw new HubError('EntryNotFound', `${id.repository}: there is no file ${missing}`);
      return remote.filter(({ path }) => chosen.includes(path));
    });
  });
  for (const path of skipped) say(`warning: left out ${JSON.stringify(path)}: the name is not valid on this system`);
  const seconds = (performance.now() - start) / 1000;
  if (flags.json) await print(`${JSON.stringify({ folder, commit, files, bytes: fetched })}\n`);
  else await print(`${folder}\n`);
  const rate = fetched > 0 ? ` in ${seconds.toFixed(1)} s (${formatBytes(Math.round(fetched / seconds))}/s)` : '';
  say(`${files.length} files at commit ${commit.slice(0, 12)}, ${formatBytes(fetched)} downloaded${rate}`);
  return 0;
}

/** Path of a model. A model of the hub is downloaded if the cache lacks it. */
export async function fetchModel(given: string, revision: string | undefined): Promise<string> {
  return interruptible('download', (options) =>
    modelAt(given, {
      ...options,
      revision,
      onChoice: (file, others) =>
        say(`${given}: using ${file}, one of ${others.length} GGUF models (choose another: ${given}:QUANTIZATION)`),
    }),
  );
}

export async function listCommand({ json }: { json?: boolean }): Promise<number> {
  const { cache } = await hubSettings();
  const models = await listModels(cache);
  if (json) {
    await print(`${JSON.stringify(models)}\n`);
    return 0;
  }
  if (models.length === 0) {
    say(`no models in ${cache}; \`lanewise download ID\` fetches one`);
    return 0;
  }
  const rows = models.flatMap(({ repository, snapshots, bytes }) =>
    snapshots.map(({ commit, refs, files }, index) => [
      index === 0 ? repository : '',
      refs.join(', '),
      commit.slice(0, 12),
      `${files.length}`,
      index === 0 ? formatBytes(bytes) : '',
    ]),
  );
  const columns = [
    { title: 'Model' },
    { title: 'Revision' },
    { title: 'Commit' },
    { title: 'Files', align: 'right' },
    { title: 'Size', align: 'right' },
  ] as const;
  await print(renderTable(columns, rows));
  say(`${formatBytes(models.reduce((sum, { bytes }) => sum + bytes, 0))} in ${cache}`);
  return 0;
}

export async function removeCommand(ids: readonly string[]): Promise<number> {
  const { cache } = await hubSettings();
  for (const id of ids) say(`removed ${id}: ${formatBytes(await removeModel(cache, id))} freed`);
  return 0;
}

/** @returns the exit code: 1 if a file is wrong */
export async function verifyCommand(ids: readonly string[], { json }: { json?: boolean }): Promise<number> {
  const { cache } = await hubSettings();
  const repositories = ids.length > 0 ? ids : (await listModels(cache)).map(({ repository }) => repository);
  let code = 0;
  for (const repository of repositories) {
    for await (const { file, status, what } of verifyModel(cache, repository)) {
      if (status === 'FAIL') code = 1;
      await print(
        json ? `${JSON.stringify({ repository, file, status, what })}\n` : `${status} ${repository}/${file}: ${what}\n`,
      );
    }
  }
  return code;
}
