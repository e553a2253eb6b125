/** Addresses and folders of the hub and its cache, from the variables of Python's huggingface_hub. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { HubError } from '../errors.ts';

export interface HubSettings {
  /** Folder of `models--ORG--NAME` folders. */
  readonly cache: string;
  /** Address without a trailing slash. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** Whether requests are forbidden. */
  readonly offline: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** @throws HubError InvalidEndpoint */
export async function hubSettings(environment: Environment = process.env): Promise<HubSettings> {
  const { HF_HOME, HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, XDG_CACHE_HOME } =
    environment;
  const home = HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  const endpoint = (HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
  if (!/^https?:\/\/[^/?#]+/.test(endpoint) || !URL.canParse(endpoint)) {
    throw new HubError('InvalidEndpoint', `expected an http address in HF_ENDPOINT, found ${JSON.stringify(endpoint)}`);
  }
  const kept = HF_TOKEN
    ? undefined
    : await readFile(HF_TOKEN_PATH || join(home, 'token'), 'utf8').catch(() => undefined);
  return {
    cache: HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(home, 'hub'),
    endpoint,
    token: (HF_TOKEN ?? kept)?.trim() || undefined,
    offline: /^(?:1|on|yes|true)$/i.test(environment.HF_HUB_OFFLINE ?? ''),
  };
}
