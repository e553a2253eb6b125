/** Faults in the middle of generations: what fails alone, what goes on, what is given back. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { PAGE } from '../../src/backend/backend.ts';
import { type GenerateEvent, type GenerateResult, load, type Model, OutOfMemoryError } from '../../src/node.ts';
import type { GenerateOptions } from '../../src/schedule/generation-options.ts';

const golden = fileURLToPath(new URL('../golden/models/llama-gqa-f16', import.meta.url));
const greedy: GenerateOptions = { temperature: 0, ignoreEos: true, maxTokens: 40 };

async function last(events: AsyncIterable<GenerateEvent>): Promise<GenerateResult> {
  for await (const event of events) if (event.type === 'done') return event;
  throw new Error('no done event');
}

const generate = (model: Model, tokenIds: readonly number[], options: GenerateOptions = {}): Promise<GenerateResult> =>
  last(model.generate({ tokenIds }, { ...greedy, ...options }));

test('a text for which memory is refused ends with an error; one that needs no more of it, and what follows, go on', async (t) => {
  await using model = await load(golden, { inline: true, threads: 1 });
  const short = [3, 4, 5];
  const long = Array.from({ length: PAGE - 8 }, (_, i) => 3 + (i % 20));
  const second = model.generate({ tokenIds: long }, greedy);
  for (let n = 0; n < 3; n++) await second.next();
  const full = (): never => {
    throw new RangeError('WebAssembly.Memory.grow(): Unable to grow instance memory');
  };
  const refusal = t.mock.method(WebAssembly.Memory.prototype, 'grow', full);
  // What a memory has beyond its last page is little, and used up soon.
  const others = Array.from({ length: 1000 }, () => model.sequence());
  await assert.rejects(Promise.all(others.map((other) => other.reserve(1))), OutOfMemoryError);
  await assert.rejects(last(second), (error) => error instanceof OutOfMemoryError && error.asked > 0);
  assert.ok(refusal.mock.callCount() > 0);
  // In the page that the other one gave back.
  const survivor = await generate(model, short, { maxTokens: 20 });
  refusal.mock.restore();
  for (const other of others) other.dispose();
  assert.deepEqual(survivor.tokenIds, (await generate(model, short, { maxTokens: 20 })).tokenIds);
  assert.equal((await generate(model, long)).tokenIds.length, 40);
});

test('two hundred generations aborted at once leave nothing behind, and touch no other', async () => {
  await using model = await load(golden, { inline: true, threads: 2 });
  const tokenIds = [3, 4, 5, 6];
  const alone = await generate(model, tokenIds);
  const storm = Array.from({ length: 200 }, async (_, i) => {
    const controller = new AbortController();
    const events = model.generate({ tokenIds: [3 + (i % 50), 7] }, { ...greedy, signal: controller.signal });
    // Some before they begin, some while they wait for others, some in the middle of their text.
    if (i % 4 === 0) controller.abort();
    for (let n = 0; n < i % 5; n++) {
      if ((await events.next().catch(() => ({ done: true }))).done) break;
    }
    controller.abort();
    await last(events).catch(() => undefined);
  });
  const survivor = generate(model, tokenIds);
  await Promise.all(storm);
  assert.deepEqual((await survivor).tokenIds, alone.tokenIds);
  const { waiting, running, pages } = model.stats();
  assert.deepEqual([waiting, running, pages.used], [0, 0, 0]);
});
