/** Rows behind cached blocks have the bits of rows that computed everything themselves, on every backend. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { portable } from '../../src/backend/wasm/choosing/choice.ts';
import { Cache } from '../../src/evaluate/cache.ts';
import type { Sequence } from '../../src/evaluate/sequence.ts';
import { backends, Runner, wasm } from './support.ts';

const CHUNK = 48;

/** A sequence as the engine evaluates it. */
class Evaluation {
  readonly sequence: Sequence;
  readonly #runner: Runner;

  constructor(runner: Runner, cache: Cache, key = '') {
    this.#runner = runner;
    this.sequence = cache.sequence({ key });
  }

  /** Logits of the last token. */
  async read(ids: readonly number[], beside?: Sequence): Promise<{ reused: number; logits: Float32Array }> {
    const { sequence } = this;
    const reused = await sequence.reuse(ids, ids.length - 1, beside);
    for (;;) {
      const tokens = ids.slice(sequence.length, sequence.length + CHUNK);
      const rows = Int32Array.from(tokens, (_, i) => i);
      await sequence.reserve(sequence.length + tokens.length);
      const results = await this.#runner.backend.forward({
        tokens: Int32Array.from(tokens),
        positions: rows.map((i) => sequence.length + i),
        sequences: new Int32Array(tokens.length),
        pages: [sequence.table()],
        wanted: rows.slice(-1),
        lengths: Int32Array.of(sequence.span(tokens.length)),
      });
      sequence.append(tokens);
      if (sequence.length === ids.length) return { reused, logits: results.output(0).slice() };
    }
  }
}

const texts = (vocab: number): { first: number[]; second: number[] } => {
  const first = Array.from({ length: 120 }, (_, i) => (i * i * 7 + 11) % vocab);
  return { first, second: [...first.slice(0, 100), (first[100]! + 1) % vocab, ...first.slice(0, 19)] };
};

for (const name of ['llama3-rope-bf16', 'mistral-window', 'gemma4-moe', 'phi3-longrope']) {
  test(`${name}: a cached beginning changes no bit, on any backend`, async () => {
    for (const [kind, make] of Object.entries(backends)) {
      const runner = await Runner.open(name, make);
      try {
        const { plan, config } = runner.model;
        const cache = new Cache(runner.backend.cache, { capacity: 30, ropes: plan.ropes });
        const { first, second } = texts(config.vocab);
        // Others have used the pages before, and so none is where it would be in an empty cache.
        const before = new Evaluation(runner, cache, 'other');
        await before.read([...second].reverse());
        const fresh = await new Evaluation(runner, cache, 'fresh').read(second);
        assert.equal(fresh.reused, 0);
        before.sequence.release();

        const running = new Evaluation(runner, cache);
        const whole = await running.read(first);
        for (const [copied, reused] of [
          [undefined, 64],
          [running.sequence, 100],
        ] as const) {
          const beside = new Evaluation(runner, cache);
          const shared = await beside.read(second, copied);
          assert.equal(shared.reused, reused, `${kind}: what a running sequence has`);
          assert.deepEqual(shared.logits, fresh.logits, kind);
          beside.sequence.discard();
        }
        running.sequence.release();

        const again = new Evaluation(runner, cache);
        const copied = await again.read(first);
        assert.equal(copied.reused, 119, kind);
        assert.deepEqual(copied.logits, whole.logits, kind);
        // Cut back into a block that the index has, and on with other tokens.
        again.sequence.truncate(30);
        assert.equal(again.sequence.length, 30);
        const tail = [...first.slice(0, 30), ...second.slice(0, 70)];
        const other = await again.read(tail);
        assert.deepEqual(other.logits, (await new Evaluation(runner, cache, 'tail').read(tail)).logits, kind);
        assert.deepEqual((await new Evaluation(runner, cache).read(first)).logits, whole.logits, kind);
      } finally {
        await runner.close();
      }
    }
  });
}

for (const storage of ['f16', 'q8_0'] as const) {
  test(`keys and values in ${storage} are reused to the bit`, async () => {
    const runner = await Runner.open('llama3-rope-bf16', wasm(2, portable), 'q8_0', 64, storage);
    try {
      const cache = new Cache(runner.backend.cache, { capacity: 30 });
      const { first, second } = texts(runner.model.config.vocab);
      const fresh = await new Evaluation(runner, cache, 'fresh').read(second);
      const before = new Evaluation(runner, cache);
      await before.read(first);
      before.sequence.release();
      const shared = await new Evaluation(runner, cache).read(second);
      assert.equal(shared.reused, 100);
      assert.deepEqual(shared.logits, fresh.logits);
    } finally {
      await runner.close();
    }
  });
}

test('across the limit of LongRoPE a sequence begins anew, and others keep what they have', async () => {
  const runner = await Runner.open('phi3-longrope', wasm(2, portable));
  try {
    const { plan, config } = runner.model;
    const cache = new Cache(runner.backend.cache, { capacity: 20, ropes: plan.ropes });
    const { first } = texts(config.vocab);
    const long = await new Evaluation(runner, cache, 'long').read(first.slice(0, 40));
    const short = new Evaluation(runner, cache);
    const before = await short.read(first.slice(0, 32));
    const other = new Evaluation(runner, cache);
    assert.equal((await other.read(first.slice(0, 20))).reused, 0, 'nothing is shared of a block that is not full yet');
    assert.ok(!short.sequence.crosses(0) && short.sequence.crosses(1));
    const page = short.sequence.table()[0];
    const { reused, logits } = await short.read(first.slice(0, 40));
    assert.equal(reused, 0);
    assert.deepEqual(logits, long.logits);
    assert.notEqual(short.sequence.table()[0], page, 'the short keys stay where they were');
    const again = await new Evaluation(runner, cache).read(first.slice(0, 32));
    assert.equal(again.reused, 31);
    assert.deepEqual(again.logits, before.logits);
  } finally {
    await runner.close();
  }
});
