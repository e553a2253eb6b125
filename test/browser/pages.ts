/** Opens finished HTML pages in Chromium, and checks what every page must hold. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { inflateSync } from 'node:zlib';
import { type Browser, chromium, type Page } from 'playwright-core';
import { findBrowser } from './browsers.ts';

/** Option `skip` of a test that opens pages. */
export const noChromium =
  findBrowser('Chromium') === undefined && 'no Chromium on this machine: install one to open pages in it';

/** A busy machine may take long for everything. */
const PATIENCE_MS = 180_000;

export interface OpenedPage {
  readonly page: Page;
  /** Errors and warnings of scripts and of the content security policy. */
  readonly problems: readonly string[];
  /** Addresses that the page asked for, without its own file and `data:`. */
  readonly requests: readonly string[];
}

/** Starts Chromium for the duration of `use`. */
export async function withChromium<T>(use: (browser: Browser) => Promise<T>): Promise<T> {
  const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'];
  const browser = await chromium.launch({ executablePath: findBrowser('Chromium')!, args, timeout: PATIENCE_MS });
  try {
    return await use(browser);
  } finally {
    await browser.close();
  }
}

/** Opens a page from a file, as people do with a saved report, and closes it after `use`. */
export async function openPage<T>(
  browser: Browser,
  html: string,
  use: (opened: OpenedPage) => Promise<T>,
  colorScheme: 'light' | 'dark' = 'light',
): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-page-'));
  const address = pathToFileURL(path.join(folder, 'page.html')).href;
  writeFileSync(new URL(address), html);
  const context = await browser.newContext({ colorScheme, viewport: { width: 1200, height: 900 } });
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    const [problems, requests]: [string[], string[]] = [[], []];
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text());
    });
    page.on('request', (request) => {
      if (request.url() !== address && !request.url().startsWith('data:')) requests.push(request.url());
    });
    await page.goto(address);
    return await use({ page, problems, requests });
  } finally {
    await context.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Checks a page in light and dark: no errors of scripts, no requests, every focusable element is reached by Tab and shows it,
 * the two screenshots differ and none is of one colour. Closed <details> are opened by the keyboard first.
 * @param screenshots where to write `NAME-light.png` and `NAME-dark.png`
 */
export async function checkPage(browser: Browser, html: string, screenshots?: string): Promise<void> {
  const images: Buffer[] = [];
  for (const scheme of ['light', 'dark'] as const) {
    await openPage(
      browser,
      html,
      async ({ page, problems, requests }) => {
        await checkKeyboard(page);
        await page.evaluate(() => scrollTo(0, 0));
        const file = screenshots === undefined ? {} : { path: `${screenshots}-${scheme}.png` };
        const image = await page.screenshot({ fullPage: true, ...file });
        assert.ok(colorsOf(image) > 2, `${scheme}: the page is empty`);
        images.push(image);
        assert.deepEqual([problems, requests], [[], []], scheme);
      },
      scheme,
    );
  }
  assert.ok(!images[0]!.equals(images[1]!), 'dark and light look the same');
}

/** Presses Tab until the focus is back at the start. */
async function checkKeyboard(page: Page): Promise<void> {
  const closed = page.locator('details:not([open]) > summary');
  for (let left = await closed.count(); left > 0; left--) {
    await closed.first().focus();
    await page.keyboard.press('Enter');
  }
  assert.equal(await closed.count(), 0, 'Enter opens details');
  const wanted = await page.evaluate(() => {
    const all = document.querySelectorAll(
      'a[href], button:not([tabindex="-1"]), input, select, textarea, summary, [tabindex="0"]',
    );
    for (const [index, element] of all.entries()) element.setAttribute('data-tab', `${index}`);
    (document.activeElement as HTMLElement | null)?.blur();
    scrollTo(0, 0);
    return all.length;
  });
  const reached = new Set<string>();
  for (let presses = 0; presses <= wanted + 1 && reached.size < wanted; presses++) {
    await page.keyboard.press('Tab');
    const [at, outline] = await page.evaluate(() => {
      const element = document.activeElement!;
      return [element.getAttribute('data-tab'), getComputedStyle(element).outlineStyle] as const;
    });
    if (at === null) continue;
    reached.add(at);
    assert.notEqual(outline, 'none', `element ${at} does not show the focus`);
  }
  assert.equal(reached.size, wanted, `Tab reaches ${reached.size} of ${wanted} elements`);
}

/** The number of colours among bytes of a PNG, up to some; enough to tell a picture from an empty page. */
function colorsOf(png: Buffer): number {
  const chunks: Buffer[] = [];
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT') chunks.push(png.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  return new Set(inflateSync(Buffer.concat(chunks))).size;
}
