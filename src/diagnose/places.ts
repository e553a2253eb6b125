/** Checks of folders that Lanewise writes to, and of the hub. */
import { access, constants, statfs } from 'node:fs/promises';
import path from 'node:path';
import { notesFolder } from '../backend/wasm/threads/host-node.ts';
import { HubError } from '../errors.ts';
import { Repository } from '../hub/download.ts';
import { type HubSettings, hubSettings } from '../hub/settings.ts';
import { type Finding, finding } from './finding.ts';

/** @param environment as `process.env` */
export async function checkFolders(environment: NodeJS.ProcessEnv = process.env): Promise<Finding[]> {
  const notes = notesFolder(environment);
  const checks = [
    notes === undefined
      ? finding('warning', 'cache.notes', null, {
          why: 'LANEWISE_NOTES=off: kernels are checked in every process, and none is measured',
          remedy: 'unset LANEWISE_NOTES',
        })
      : await checkWritable('cache.notes', notes, {
          why: 'kernels are checked and measured in every process anew',
          remedy: 'make it writable, or set XDG_CACHE_HOME',
        }),
  ];
  let settings: HubSettings;
  try {
    settings = await hubSettings(environment);
  } catch (error) {
    return [...checks, settingsFault(error)];
  }
  const remedy = 'make it writable, or set HF_HOME or HF_HUB_CACHE';
  const cache = await checkWritable('cache.hub', settings.cache, { why: 'no model can be downloaded', remedy });
  return [...checks, cache, ...(await checkSpace(settings.cache))];
}

async function checkWritable(key: string, folder: string, texts: { why: string; remedy: string }): Promise<Finding> {
  const nearest = await existing(folder);
  try {
    await access(nearest, constants.W_OK | constants.X_OK);
    return finding('ok', key, folder, { why: nearest === folder ? undefined : 'made when it is first needed' });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return finding('warning', key, folder, { ...texts, why: `${nearest} is not writable (${code}): ${texts.why}` });
  }
}

/** Least free space for a small model. */
const LITTLE_SPACE = 2e9;

async function checkSpace(folder: string): Promise<Finding[]> {
  try {
    const { bavail, bsize } = await statfs(await existing(folder));
    const free = bavail * bsize;
    if (free >= LITTLE_SPACE) return [finding('ok', 'cache.free', free)];
    return [
      finding('warning', 'cache.free', free, { why: 'little for a model', remedy: 'lanewise remove ID frees space' }),
    ];
  } catch {
    return [];
  }
}

/** The folder, or the nearest one above it that exists. */
async function existing(folder: string): Promise<string> {
  for (let at = path.resolve(folder); ; at = path.dirname(at)) {
    const there = await access(at).then(
      () => true,
      () => false,
    );
    if (there || at === path.dirname(at)) return at;
  }
}

const settingsFault = (error: unknown): Finding =>
  finding('fault', 'hub.endpoint', null, { why: (error as Error).message, remedy: 'set or unset HF_ENDPOINT' });

/** A small public repository, whose answer shows that the hub can be reached. */
const ASKED = 'openai-community/gpt2';

/** @param ask whether to send a request */
export async function checkHub(ask: boolean, environment: NodeJS.ProcessEnv = process.env): Promise<Finding[]> {
  let settings: HubSettings;
  try {
    settings = await hubSettings(environment);
  } catch {
    return [];
  }
  const { endpoint, token, offline } = settings;
  const facts = [
    finding('ok', 'hub.endpoint', endpoint),
    finding('ok', 'hub.token', token !== undefined, {
      why: token === undefined ? 'none: public models only' : 'set; it is not shown',
    }),
    finding('ok', 'hub.offline', offline, { why: offline ? 'HF_HUB_OFFLINE forbids requests' : undefined }),
  ];
  if (!ask || offline) return facts;
  const start = performance.now();
  try {
    await new Repository(ASKED, settings, { transport: { attempts: 1, stallMs: 10_000 } }).describe('main');
    const ms = Math.round(performance.now() - start);
    return [...facts, finding('ok', 'hub.reachable', true, { why: `answered in ${ms} ms` })];
  } catch (error) {
    const answered = error instanceof HubError && ['RepositoryNotFound', 'GatedRepo'].includes(error.code);
    if (answered) return [...facts, finding('ok', 'hub.reachable', true, { why: (error as Error).message })];
    return [
      ...facts,
      finding('fault', 'hub.reachable', false, {
        why: (error as Error).message,
        remedy: 'check the network, HTTPS_PROXY and HF_ENDPOINT',
      }),
    ];
  }
}
