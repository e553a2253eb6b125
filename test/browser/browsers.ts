/** Starts the installed browsers headless, with a fresh profile. */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

export type BrowserName = 'Chromium' | 'Firefox';

interface Kind {
  /** Names of programs; the first one that exists is used. */
  readonly programs: readonly string[];
  arguments(profile: string, address: string): string[];
}

const chromiumFlags = [
  ...['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage'],
];

/** No dialogs, no network requests of the browser, no throttling of hidden pages. */
const firefoxPreferences: Readonly<Record<string, boolean | number | string>> = {
  'app.update.enabled': false,
  'app.normandy.enabled': false,
  'browser.aboutwelcome.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'browser.startup.homepage_override.mstone': 'ignore',
  'datareporting.policy.dataSubmissionEnabled': false,
  'dom.disable_beforeunload': true,
  'extensions.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,',
  'toolkit.telemetry.server': 'data:,',
};

const kinds: Readonly<Record<BrowserName, Kind>> = {
  Chromium: {
    programs: ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'],
    arguments: (profile, address) => [...chromiumFlags, `--user-data-dir=${profile}`, address],
  },
  Firefox: {
    programs: ['firefox-esr', 'firefox'],
    arguments(profile, address) {
      const lines = Object.entries(firefoxPreferences).map(
        ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`,
      );
      writeFileSync(path.join(profile, 'user.js'), lines.join(''));
      return ['--headless', '--no-remote', '--profile', profile, address];
    },
  },
};

export const browserNames = Object.keys(kinds) as BrowserName[];

/** The program of a browser; undefined if it is not installed. */
export function findBrowser(name: BrowserName): string | undefined {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  const files = kinds[name].programs.flatMap((program) => folders.map((folder) => path.join(folder, program)));
  return files.find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Opens an address until `result` resolves. @throws Error if the browser exits earlier */
export async function withBrowser<T>(name: BrowserName, address: string, result: Promise<T>): Promise<T> {
  const profile = mkdtempSync(path.join(tmpdir(), 'lanewise-browser-'));
  // Its own process group, because browsers start further processes.
  const child = spawn(findBrowser(name)!, kinds[name].arguments(profile, address), { stdio: 'ignore', detached: true });
  const leave = (): void => {
    process.kill(-child.pid!, 'SIGKILL');
    process.exit(1);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, leave);
  try {
    const ended = new Promise<never>((_, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => reject(new Error(`${name} ended with ${signal ?? `code ${code}`}`)));
    });
    return await Promise.race([result, ended]);
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, leave);
    await end(child);
    rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

async function end(child: ChildProcess): Promise<void> {
  child.removeAllListeners('exit');
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  process.kill(-child.pid, 'SIGKILL');
  await gone;
}
