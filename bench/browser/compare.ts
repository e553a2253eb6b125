/**
 * Compares Lanewise with wllama in browsers: the same GGUF file and thread count, taking turns in one isolated page:
 * `npm run bench:browser -- FILE.gguf [--browser Chromium,Firefox] [--turns 5] [--threads 2] [--tokens 64] [--only
 * lanewise] [--json]`.
 *
 * Lanewise runs in a worker of the page, wllama in its own workers; both decode greedily and ignore end tokens. `First`
 * is the time to the first token after a prompt of about 60 tokens, `decode` the rate of the following tokens; medians.
 * Quote only ratios of one run.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { type Column, renderTable } from '../../src/cli/table.ts';
import { median } from '../../src/measure/statistics.ts';
import { type BrowserName, browserNames, findBrowser, withBrowser } from '../../test/browser/browsers.ts';
import { serveSources } from '../../test/browser/server.ts';
import { argumentsOf, countOf, namesOf, refuse } from '../arguments.ts';
import type { Posted, Turn } from './page.ts';

interface Row {
  readonly browser: BrowserName;
  readonly engine: string;
  readonly threads: number;
  /** Milliseconds to the first token. */
  readonly first: number;
  /** Tokens per second. */
  readonly decode: number;
}

const prompt = 'The miller had three sons, and when he died he left them his mill, his donkey and his cat. '.repeat(3);

const engines = ['lanewise', 'wllama'] as const;

const { values, positionals } = argumentsOf({
  allowPositionals: true,
  options: {
    browser: { type: 'string', default: browserNames.join(',') },
    turns: { type: 'string', default: '5' },
    threads: { type: 'string', default: String(availableParallelism()) },
    tokens: { type: 'string', default: '64' },
    only: { type: 'string', default: engines.join(',') },
    json: { type: 'boolean', default: false },
  },
});
const [file] = positionals;
if (file === undefined || positionals.length > 1) refuse('one .gguf file is measured');
const counts = {
  turns: countOf('--turns', values.turns),
  threads: countOf('--threads', values.threads),
  tokens: countOf('--tokens', values.tokens, 2),
};
const only = namesOf('--only', values.only, engines);

function rowOf(browser: BrowserName, engine: string, threads: number, turns: readonly Turn[]): Row {
  const first = median(turns.map(({ start, times }) => times[0]! - start));
  const decode = median(turns.map(({ times }) => ((times.length - 1) * 1000) / (times.at(-1)! - times[0]!)));
  return { browser, engine, threads, first, decode };
}

const rows: Row[] = [];
for (const browser of namesOf('--browser', values.browser, browserNames)) {
  if (findBrowser(browser) === undefined) {
    console.error(`${browser} is not installed: skipped`);
    continue;
  }
  const given = new Map([['model.gguf', readFileSync(file)]]);
  const server = await serveSources('/bench/browser/page.ts', { isolated: true, given });
  const query = new URLSearchParams({ model: `${server.origin}/given/model.gguf`, prompt, engines: only.join() });
  for (const [name, count] of Object.entries(counts)) query.set(name, String(count));
  try {
    const posted = (await withBrowser(browser, `${server.origin}/?${query}`, server.result)) as
      | Posted
      | { error: string };
    if ('error' in posted) throw new Error(`${browser}: ${posted.error}`);
    for (const { engine, threads, turns } of posted.engines) rows.push(rowOf(browser, engine, threads, turns));
  } finally {
    server.close();
  }
}
if (values.json) console.log(JSON.stringify({ file, ...counts, rows }, null, 2));
else {
  const columns: Column[] = [
    { title: 'Browser' },
    { title: 'Engine' },
    { title: 'Threads', align: 'right' },
    { title: 'First', align: 'right' },
    { title: 'Decode', align: 'right' },
  ];
  const cells = rows.map(({ browser, engine, threads, first, decode }) => [
    browser,
    engine,
    `${threads}`,
    `${first.toFixed(0)} ms`,
    `${decode.toFixed(1)} tokens/s`,
  ]);
  console.log(renderTable(columns, cells));
}
