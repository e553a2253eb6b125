/**
 * How fast a saved cache comes back: `node bench/cache-file.ts [--tokens 3000] [--repeat 5] [MODEL]`. Beside it the rate at which
 * the same file is only read, in the same run.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { load } from '../src/node.ts';

const { values, positionals } = parseArgs({
  options: { tokens: { type: 'string', default: '3000' }, repeat: { type: 'string', default: '5' } },
  allowPositionals: true,
});
const [tokens, repeat] = [Number(values.tokens), Number(values.repeat)];
const folder = await mkdtemp(path.join(tmpdir(), 'lanewise-cache-'));
const file = path.join(folder, 'cache.bin');
const rate = (bytes: number, ms: number): string => `${(bytes / ms / 1e6).toFixed(2)} GB/s`;
const options = { inline: true, cacheTokens: 2 * Math.max(tokens, 4096) };
try {
  {
    await using model = await load(positionals[0], options);
    const { vocab } = model.description.config;
    const length = Math.min(model.contextLength - 1, tokens);
    for (let n = 0; n * length < tokens; n++) {
      const tokenIds = Array.from({ length }, (_, i) => (7 + n + i * 37) % vocab);
      await model.complete({ tokenIds }, { maxTokens: 1 });
    }
    const start = performance.now();
    const { bytes } = await model.saveCache(file);
    console.log(`saved ${(bytes / 1e6).toFixed(1)} MB: ${rate(bytes, performance.now() - start)}`);
  }
  const [restored, read]: [number[], number[]] = [[], []];
  let size = 0;
  for (let n = 0; n < repeat; n++) {
    await using model = await load(positionals[0], options);
    const before = process.cpuUsage();
    const start = performance.now();
    const { tokens: found, bytes } = await model.restoreCache(file);
    const end = performance.now();
    const { user, system } = process.cpuUsage(before);
    restored.push(end - start);
    size = (await readFile(file)).length;
    read.push(performance.now() - end);
    console.log(
      `restored ${found} tokens, ${rate(bytes, end - start)}; read alone ${rate(size, read.at(-1)!)}; ${rate(bytes, (user + system) / 1e3)} of one core (${(user / 1e3).toFixed(0)} user, ${(system / 1e3).toFixed(0)} system)`,
    );
  }
  const best = (times: readonly number[]): number => Math.min(...times);
  console.log(`best: restored ${rate(size, best(restored))}, read alone ${rate(size, best(read))}`);
} finally {
  await rm(folder, { recursive: true });
}
