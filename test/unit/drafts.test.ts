/** Whatever a drafter guesses, the text is that of the model alone. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import type { Drafter, DraftRequest } from '../../src/drafting/drafter.ts';
import { PromptLookup } from '../../src/drafting/lookup.ts';
import { ModelDrafter } from '../../src/drafting/model-drafter.ts';
import { embeddedModel, type GenerateOptions, type GenerateResult, load, type Prompt } from '../../src/node.ts';
import { validateGenerate } from '../../src/schedule/generation-options.ts';
import { answer, type Bench, openBench } from './drafting-engine.ts';

const longRope = fileURLToPath(new URL('../golden/models/phi3-longrope', import.meta.url));
const falcon = fileURLToPath(new URL('../golden/models/falcon-7b', import.meta.url));
const gemma = fileURLToPath(new URL('../golden/models/gemma3', import.meta.url));

type Guess = (request: DraftRequest, most: number) => Promise<readonly number[]> | readonly number[];

class TestDrafter implements Drafter {
  readonly name = 'a drafter';
  readonly guess: Guess;
  readonly released = new Set<DraftRequest>();

  constructor(guess: Guess) {
    this.guess = guess;
  }

  draft(wishes: readonly { request: DraftRequest; most: number }[]): Promise<readonly (readonly number[])[]> {
    return Promise.all(wishes.map(({ request, most }) => this.guess(request, most)));
  }

  readingMs(): number {
    return 0;
  }

  release(request: DraftRequest): void {
    this.released.add(request);
  }

  async dispose(): Promise<void> {}
}

const shown = ({ tokenIds, text, finishReason, stoppedBy, error }: GenerateResult): unknown[] => [
  tokenIds,
  text,
  finishReason,
  stoppedBy,
  error?.message,
];

/** What comes next in the text that the model gives alone. */
const oracle =
  (known: readonly GenerateResult[], length: (most: number) => number): Guess =>
  ({ history }, most) => {
    for (const { promptTokenIds, tokenIds } of known) {
      const whole = [...promptTokenIds, ...tokenIds];
      if (history.every((id, i) => whole[i] === id)) return whole.slice(history.length, history.length + length(most));
    }
    return [];
  };

async function withBench(path: string, options: object, body: (bench: Bench) => Promise<void>): Promise<void> {
  const bench = await openBench(path, options);
  try {
    await body(bench);
    assert.equal(bench.evaluator.cache.stats().used, 0, 'pages left in use');
  } finally {
    await bench.dispose();
  }
}

const prompts: Prompt[] = ['Once upon a time', 'A dog', 'One day, a girl went to the'];

test('texts are the same to the bit whatever is guessed, how long, how late, or thrown', async () => {
  await withBench(embeddedModel, {}, async (bench) => {
    const cases: GenerateOptions[] = [
      { temperature: 0, maxTokens: 23 },
      { temperature: 0.9, topP: 0.9, seed: 4, maxTokens: 23, repetitionPenalty: 1.1, logprobs: 2 },
      { temperature: 0.7, seed: 8, maxTokens: 40, stop: [' and', 'big'] },
    ];
    const alone = bench.scheduler([]);
    const plain = await Promise.all(cases.map((options, i) => answer(alone, prompts[i]!, options)));
    const { vocab } = bench.evaluator;
    const kinds: Record<string, (seed: number) => Guess> = {
      right: () => oracle(plain, (most) => most),
      'right, too long': () => oracle(plain, (most) => most + 9),
      wrong: () => (request, most) => Array(most).fill((request.history.at(-1)! + 1) % vocab),
      'right, then wrong': (seed) => async (request, most) => [
        ...(await oracle(plain, () => 1 + (seed % 3))(request, most)),
        seed % vocab,
      ],
      'no tokens': (seed) => () => [vocab + seed, -1, 1.5],
      'nothing, late': () => () => new Promise((resolve) => setImmediate(resolve, [])),
      'right, late': () => async (request, most) => {
        await new Promise((resolve) => setImmediate(resolve));
        return oracle(plain, (all) => all)(request, most);
      },
      throws: (seed) => () => {
        if (seed % 2) throw new Error('no guess');
        return 'no array' as unknown as number[];
      },
    };
    const kind = fc.constantFrom(...Object.keys(kinds));
    await fc.assert(
      fc.asyncProperty(fc.array(kind, { minLength: 1, maxLength: 2 }), fc.nat(1000), async (names, seed) => {
        const drafters = names.map((name) => new TestDrafter(kinds[name]!(seed)));
        const scheduler = bench.scheduler(drafters);
        const results = await Promise.all(cases.map((options, i) => answer(scheduler, prompts[i]!, options)));
        assert.deepEqual(results.map(shown), plain.map(shown));
        for (const drafter of drafters) assert.ok(drafter.released.size >= cases.length);
        const { tokens, accepted } = scheduler.stats().drafts;
        assert.ok(accepted <= tokens);
        assert.equal(
          accepted,
          results.reduce((sum, { usage }) => sum + usage.acceptedDraftTokens!, 0),
        );
        if (names[0] === 'right') assert.ok(accepted > 40, `${accepted} guesses were right`);
        if (names.every((name) => name === 'wrong')) assert.equal(accepted, 0);
      }),
      {
        numRuns: 12,
        examples: [
          [['right'], 0],
          [['wrong'], 0],
          [['throws', 'right'], 1],
        ],
      },
    );
  });
});

test('a text that repeats itself takes few forwards', async () => {
  // Random weights: after some tokens they go in circles.
  await withBench(falcon, {}, async (bench) => {
    const options = { temperature: 0, maxTokens: 60 };
    const prompt = { tokenIds: [5, 6, 7] };
    const plain = await answer(bench.scheduler([]), prompt, options);
    const fast = await answer(bench.scheduler([new PromptLookup()]), prompt, options);
    assert.deepEqual(fast.tokenIds, plain.tokenIds);
    assert.ok(fast.usage.acceptedDraftTokens! > 20, `${fast.usage.acceptedDraftTokens} accepted`);
    assert.ok(fast.timings.steps.length < 40, `${fast.timings.steps.length} forwards for 60 tokens`);
  });
});

test('limits and stops within a draft end the text where they do alone', async () => {
  await withBench(embeddedModel, { contextLength: 96 }, async (bench) => {
    const [long] = [await answer(bench.scheduler([]), prompts[0]!, { temperature: 0, maxTokens: 60 })];
    const stopIds = [long.tokenIds[31]!];
    for (const options of [
      { maxTokens: 7 },
      { maxTokens: 60, stopTokenIds: stopIds },
      { maxTokens: 60, stop: long.text.slice(90, 97) },
      { maxTokens: -1 },
    ]) {
      const drafter = new TestDrafter(oracle([long], (most) => most));
      const given = { temperature: 0, ...options };
      const plain = await answer(bench.scheduler([]), prompts[0]!, given);
      const drafted = await answer(bench.scheduler([drafter]), prompts[0]!, given);
      assert.deepEqual(shown(drafted), shown(plain));
      assert.ok(drafted.usage.acceptedDraftTokens! > 0);
    }
  });
});

test('a constraint and a logits processor see each token once, whatever is guessed', async () => {
  await withBench(embeddedModel, {}, async (bench) => {
    const run = async (drafters: readonly Drafter[]): Promise<unknown> => {
      const accepted: number[] = [];
      let asked = 0;
      const constraint = {
        allowed(mask: Uint32Array): void {
          asked++;
          // Only even ids behind odd ones.
          if ((accepted.at(-1) ?? 0) % 2) for (let i = 0; i < mask.length; i++) mask[i]! &= 0x55555555;
        },
        accept: (id: number): void => void accepted.push(id),
      };
      const logitsProcessor = (logits: Float32Array, history: readonly number[]): void => {
        logits[history.length % logits.length] = Number.NEGATIVE_INFINITY;
      };
      const options = { temperature: 0.8, seed: 3, maxTokens: 30, constraint, logitsProcessor };
      const result = await answer(bench.scheduler(drafters), prompts[1]!, options);
      assert.equal(asked, 30);
      return [shown(result), accepted];
    };
    const plain = await run([]);
    const own = await openBench(embeddedModel, { quantize: 'q8_0' });
    const { evaluator } = own;
    const drafter = new ModelDrafter({ evaluator, contextLength: 256 });
    assert.deepEqual(await run([drafter]), plain);
    assert.equal(evaluator.cache.stats().used, 0);
    await own.dispose();
  });
});

test('an error of a drafter is told once, and its requests go on without', async () => {
  await withBench(embeddedModel, {}, async (bench) => {
    const warnings: string[] = [];
    let calls = 0;
    const drafter = new TestDrafter(() => {
      calls++;
      throw new Error('out of order');
    });
    const scheduler = bench.scheduler([drafter], (text) => warnings.push(text));
    const result = await answer(scheduler, prompts[0]!, { temperature: 0, maxTokens: 60 });
    assert.equal(result.finishReason, 'length');
    assert.ok(calls > 1 && calls < 6, `${calls} calls`);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /a drafter failed.*out of order/);
  });
});

test('a draft model guesses for many requests, also where they pause and its cache is too small for all', async () => {
  // Three requests of 128 positions do not fit at once.
  await withBench(embeddedModel, { contextLength: 128, cacheTokens: 320 }, async (bench) => {
    const draft = await openBench(embeddedModel, { quantize: 'q8_0', contextLength: 128, cacheTokens: 192 });
    const { evaluator } = draft;
    const drafter = new ModelDrafter({ evaluator, contextLength: 100 });
    const options = [0, 1, 2, 3].map((i) => ({ temperature: i % 2 ? 0.8 : 0, seed: i, maxTokens: 100, priority: i }));
    const plain: GenerateResult[] = [];
    for (const [i, each] of options.entries()) plain.push(await answer(bench.scheduler([]), prompts[i % 3]!, each));
    const scheduler = bench.scheduler([drafter]);
    const results = await Promise.all(options.map((each, i) => answer(scheduler, prompts[i % 3]!, each)));
    assert.deepEqual(results.map(shown), plain.map(shown));
    const { drafts } = scheduler.stats();
    assert.ok(drafts.accepted > drafts.tokens / 3, JSON.stringify(drafts));
    assert.equal(evaluator.cache.stats().used, 0);
    await draft.dispose();
  });
});

test('a request that is cancelled in a draft ends, and its draft sequence too', async () => {
  await withBench(embeddedModel, {}, async (bench) => {
    const draft = await openBench(embeddedModel, { quantize: 'q8_0' });
    const { evaluator } = draft;
    const model = new ModelDrafter({ evaluator, contextLength: 256 });
    const scheduler = bench.scheduler([
      {
        name: model.name,
        async draft(wishes) {
          const drafts = await model.draft(wishes);
          if (wishes[0]!.request.history.length > 30) ticket.cancel();
          return drafts;
        },
        readingMs: (request) => model.readingMs(request),
        release: (request) => model.release(request),
        dispose: () => model.dispose(),
      },
    ]);
    let ticket!: { cancel(): void };
    const settings = validateGenerate({ temperature: 0, maxTokens: 200 });
    const result = await new Promise<GenerateResult>((resolve) => {
      ticket = scheduler.submit({ prompt: prompts[0]!, settings }, (event) => {
        if (event.type === 'done') resolve(event);
      });
    });
    assert.equal(result.finishReason, 'aborted');
    assert.equal(evaluator.cache.stats().used, 0);
    await draft.dispose();
  });
});

test('drafts across the limit of LongRoPE, by the model itself', async () => {
  await withBench(longRope, { contextLength: 64 }, async (bench) => {
    const draft = await openBench(longRope, { contextLength: 64 });
    const drafter = new ModelDrafter({ evaluator: draft.evaluator, contextLength: 64 });
    for (const [length, maxTokens] of [
      [20, 30],
      [31, 10],
      [33, 12],
    ] as const) {
      const prompt = { tokenIds: Array.from({ length }, (_, i) => 3 + ((i * 7) % 50)) };
      const options = { temperature: 0, maxTokens };
      const plain = await answer(bench.scheduler([]), prompt, options);
      const drafted = await answer(bench.scheduler([drafter]), prompt, options);
      assert.deepEqual(shown(drafted), shown(plain));
      assert.ok(drafted.usage.acceptedDraftTokens! > maxTokens / 3, JSON.stringify(drafted.usage));
    }
    await draft.dispose();
  });
});

test('load with a draft model: the same weights in another storage, greedy and drawn, alone and in a batch', async () => {
  const options = { inline: true, quantize: 'none', threads: 1, contextLength: 128 };
  await using plain = await load(undefined, options);
  await using drafted = await load(undefined, { ...options, draft: { quantize: 'q8_0' } });
  for (const how of [{ temperature: 0 }, { temperature: 0.8, seed: 11 }]) {
    const given = { ...how, maxTokens: 40 };
    const results = await drafted.generateBatch(prompts, given);
    assert.deepEqual(results.map(shown), (await plain.generateBatch(prompts, given)).map(shown));
    for (const { usage } of results) assert.equal(typeof usage.draftTokens, 'number');
    const without = await drafted.generateBatch(prompts, { ...given, speculate: 0 });
    assert.deepEqual(without.map(shown), results.map(shown));
    assert.equal(without[0]!.usage.draftTokens, undefined);
  }
  assert.ok(drafted.memory().weights > plain.memory().weights, 'the weights of both models count');
});

test('a draft model with other tokens is refused, with the first difference', async () => {
  await assert.rejects(load(undefined, { inline: true, draft: gemma }), {
    code: 'InvalidOption',
    option: 'draft',
    message:
      /^draft must be a model with the tokens of .*lanewise-stories, whose token 0 is "<\|endoftext\|>", got "<pad>"$/,
  });
  await assert.rejects(load(undefined, { inline: true, draft: { quantize: 'q9' } }), { option: 'draft.quantize' });
  await assert.rejects(load(undefined, { inline: true, draft: { model: 'x' } as object }), {
    message: /draft\.model must be left out/,
  });
});
