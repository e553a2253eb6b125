/** Models of the hub in browsers: the list of files is fetched, files are read by ranges, without a cache. */
import { HubError } from '../errors.ts';
import type { FetchOptions } from '../formats/adapters/fetch.ts';
import { checkRepository, checkRevision, type HubId, isCommit, quote, revisionOf } from './names.ts';
import { type RangedModel, rangedModel } from './ranges.ts';

export interface WebHubOptions extends FetchOptions {
  /** Address of the hub. */
  readonly endpoint: string;
  readonly token?: string;
  /** A branch, tag or commit. Default: the id's, or main. */
  readonly revision?: string;
}

/** The files of a model at the hub, at the current commit of its revision. @throws HubError */
export async function webModel(id: HubId, options: WebHubOptions): Promise<RangedModel> {
  const repository = checkRepository(id.repository);
  const revision = checkRevision(revisionOf(id, options.revision));
  const endpoint = options.endpoint.replace(/\/+$/, '');
  const { token } = options;
  const headers = { ...options.headers, ...(token !== undefined && { authorization: `Bearer ${token}` }) };
  const ask = async (address: string): Promise<string> => {
    const { request = fetch, signal = null } = options;
    const answer = await request(address, { headers, signal }).catch((error: Error) => {
      signal?.throwIfAborted();
      throw new HubError('Unreachable', `${address}: expected a response from the hub, found none: ${error.message}`);
    });
    if (answer.ok) return answer.text();
    await answer.body?.cancel();
    throw refused(`${repository}@${revision}`, answer.status, token);
  };
  const { commit, paths } = parseInfo(
    repository,
    await ask(`${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}`),
  );
  const root = `${endpoint}/${repository}/resolve/${commit}`;
  const addressOf = (path: string): string => `${root}/${path.split('/').map(encodeURIComponent).join('/')}`;
  return rangedModel(id, paths, { ...options, headers, addressOf, read: (path) => ask(addressOf(path)) });
}

function parseInfo(repository: string, text: string): { commit: string; paths: string[] } {
  let info: { sha?: unknown; siblings?: unknown } | null = null;
  try {
    info = JSON.parse(text);
  } catch {
    // Reported below.
  }
  const { sha, siblings } = info ?? {};
  if (!isCommit(sha) || !Array.isArray(siblings)) {
    const what = `expected {"sha": commit, "siblings": files} from the hub, found ${quote(text)}`;
    throw new HubError('InvalidAnswer', `${repository}: ${what}`);
  }
  const names = siblings.map((entry: { rfilename?: unknown } | null) => entry?.rfilename);
  return { commit: sha, paths: names.filter((name): name is string => typeof name === 'string') };
}

function refused(what: string, status: number, token: string | undefined): HubError {
  if (status === 404) {
    return new HubError('RevisionNotFound', `${what}: the hub has no such repository or revision; check both`);
  }
  if (status === 401 || status === 403) {
    const hint =
      token === undefined ? 'give the option token if it is private or gated' : 'the token does not give access';
    return new HubError('Unauthorized', `${what}: the hub has no such public repository (status ${status}); ${hint}`);
  }
  return new HubError('HttpStatus', `${what}: expected status 200 from the hub, found ${status}; try again later`);
}
