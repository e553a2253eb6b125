/** Tuning with planted measurements: the optimum is known, budgets are kept, interrupted runs continue. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { checkStoragePlan, formatStoragePlan, parseStoragePlan } from '../../src/models/storage-plan.ts';
import type { WeightRole } from '../../src/plan/step.ts';
import type { Storage } from '../../src/quant/storage.ts';
import { storageBytes } from '../../src/quant/storage.ts';
import { renderHtml } from '../../src/report/html.ts';
import { renderMarkdown } from '../../src/report/markdown.ts';
import type { Budget } from '../../src/tune/budget.ts';
import { type Measures, memoryStore, type Store } from '../../src/tune/measures.ts';
import { planOf } from '../../src/tune/plan-file.ts';
import { tuneReport } from '../../src/tune/report.ts';
import { type Tuned, tune } from '../../src/tune/tune.ts';
import type { Unit } from '../../src/tune/unit.ts';

const types = ['f32', 'q8_0', 'q4_0'] as const satisfies readonly Storage[];

const roleOf = (name: string): WeightRole =>
  name === 'embedding' ? 'embedding' : name.includes('ffn') ? 'ffn' : 'attention';

const unit = (name: string, layer: number | undefined, out = 64, uses = 1): Unit => ({
  name,
  kind: name.replace(/^layers\.\d+\./, ''),
  layer,
  matrices: [{ name, role: roleOf(name), shape: [out, 256], uses, stored: 'f32' }],
  weights: [name],
  types,
  stored: 'f32',
});

const layers = [0, 1, 2, 3].flatMap((layer) => [
  unit(`layers.${layer}.attention.q`, layer),
  unit(`layers.${layer}.ffn.up`, layer, 128),
]);
const units = [unit('embedding', undefined, 512, 0), ...layers];

/** Planted: relative errors by type, the sensitivity of each unit, times by type. */
const errorOf: Record<string, number> = { f32: 0, q8_0: 1e-4, q4_0: 1e-2 };
const rowMs: Record<string, number> = { f32: 4, q8_0: 2, q4_0: 1 };
const sensitivity = ({ layer, kind }: Unit): number => (kind === 'ffn.up' ? 4 : 1) * (layer === 2 ? 10 : 1);
const lossOf = (weights: Readonly<Record<string, Storage>>): number =>
  units.reduce((sum, one) => sum + sensitivity(one) * errorOf[weights[one.name] ?? 'f32']!, 0);
const bytesOf = (weights: Readonly<Record<string, Storage>>): number =>
  units.reduce((sum, { name, matrices }) => sum + matrices[0]!.shape[0] * storageBytes(weights[name]!, 256), 0);

const msOf = (weights: Readonly<Record<string, Storage>>): number =>
  units.reduce((sum, { name, matrices }) => sum + matrices[0]!.uses * rowMs[weights[name]!]!, 0);
/** Turns whose differences are the same for all plans. */
const turns = (ms: number): number[] => Array.from({ length: 12 }, (_, turn) => ms * (1 + 0.1 * (turn % 3)));

interface Counts {
  errors: number;
  times: number;
  losses: number;
}

function planted(counts: Counts = { errors: 0, times: 0, losses: 0 }, changes: Partial<Measures> = {}): Measures {
  const measures: Measures = {
    errors: async (_, types) => {
      counts.errors++;
      return types.map((type) => ({ weights: errorOf[type]! / 2, output: errorOf[type]! }));
    },
    times: async ({ types }) => {
      counts.times++;
      return types.map((type) => ({ rowMs: rowMs[type]!, chunkRowMs: rowMs[type]! / 10 }));
    },
    loss: async (weights) => {
      counts.losses++;
      return lossOf(weights);
    },
    race: async (plans) => plans.map((weights) => turns(msOf(weights))),
    planLoss: (weights) => measures.loss(weights),
    ...changes,
  };
  return measures;
}

const run = (budget: Budget, measures = planted(), store: Store = memoryStore(), samples = 9): Promise<Tuned> =>
  tune({ units, fixedBytes: 1000, alignment: 32, measures, store, budget, samples });

/** All plans, by brute force. */
function* allPlans(): Generator<Record<string, Storage>> {
  for (let code = 0; code < types.length ** units.length; code++) {
    let rest = code;
    yield Object.fromEntries(
      units.map(({ name }) => {
        const type = types[rest % types.length]!;
        rest = Math.floor(rest / types.length);
        return [name, type];
      }),
    );
  }
}

const close = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.abs(expected) + 1e-15, `${actual} is not ${expected}`);

test('a size gets the least loss of all plans that fit', async () => {
  for (const bytes of [190_000, 220_000, 400_000, 1_000_000]) {
    const { weights, plan, solver } = await run({ kind: 'size', bytes });
    let least = Number.POSITIVE_INFINITY;
    for (const other of allPlans()) if (bytesOf(other) + 1000 <= bytes) least = Math.min(least, lossOf(other));
    assert.equal(plan.bytes, bytesOf(weights) + 1000);
    assert.ok(plan.bytes <= bytes);
    close(lossOf(weights), least);
    close(plan.predictedLoss, least);
    close(plan.measuredLoss!, least);
    assert.match(solver, /^exact/);
  }
});

test('a loss gets the smallest file that keeps it', async () => {
  for (const loss of [0.4, 0.05, 0.002]) {
    const { weights, plan } = await run({ kind: 'loss', loss });
    let least = Number.POSITIVE_INFINITY;
    for (const other of allPlans()) if (lossOf(other) <= loss * (1 + 1e-9)) least = Math.min(least, bytesOf(other));
    assert.equal(bytesOf(weights), least);
    assert.ok(plan.measuredLoss! <= loss * (1 + 1e-9));
  }
});

test('a loss is kept as measured, although losses together are more than their sum', async () => {
  const counts = { errors: 0, times: 0, losses: 0 };
  const worse = planted(counts, {
    loss: async (weights) => lossOf(weights) * (Object.keys(weights).length > 1 ? 3 : 1),
  });
  const { plan } = await run({ kind: 'loss', loss: 0.05 }, worse);
  assert.ok(plan.measuredLoss! <= 0.05);
  close(plan.measuredLoss! / plan.predictedLoss, 3);
});

test('what cannot be kept is refused with what can be reached', async () => {
  await assert.rejects(run({ kind: 'size', bytes: 50_000 }), {
    code: 'InvalidOption',
    message: /^budget must be at least 0\.19 MB, the smallest file that Lanewise can write, got "0\.05 MB"$/,
  });
});

test('the fastest plan is never slower than a fixed policy, also under a limit', async () => {
  // For one shape q8_0 is faster than q4_0, for the other slower: no policy for all layers can be best.
  const times: Measures['times'] = async ({ shape, types }) =>
    types.map((type) => {
      const ms = type === 'q8_0' && shape[0] === 64 ? 0.5 : rowMs[type]!;
      return { rowMs: ms, chunkRowMs: ms / 10 };
    });
  const race: Measures['race'] = async (plans) => plans.map((_, i) => turns(i === 0 ? 3 : 4));
  const { plan, policies, weights } = await run({ kind: 'speed' }, planted(undefined, { times, race }));
  assert.equal(weights['layers.0.attention.q'], 'q8_0');
  assert.equal(weights['layers.0.ffn.up'], 'q4_0');
  for (const policy of policies) assert.ok(plan.rowMs < policy.rowMs, `${policy.name} is as fast`);
  const limited = await run({ kind: 'speed', loss: 0.05 }, planted(undefined, { times }));
  assert.ok(limited.plan.measuredLoss! <= 0.05 && limited.plan.rowMs > plan.rowMs);
  const small = await run({ kind: 'speed', bytes: 220_000 }, planted(undefined, { times }));
  assert.ok(small.plan.bytes <= 220_000 && small.plan.rowMs >= plan.rowMs);
});

test('a plan that is slower in turns than a fixed policy gives way to it', async () => {
  const times: Measures['times'] = async ({ shape, types }) =>
    types.map((type) => {
      const ms = type === 'q8_0' && shape[0] === 64 ? 0.5 : rowMs[type]!;
      return { rowMs: ms, chunkRowMs: ms / 10 };
    });
  // Beside other layers q8_0 is as slow as it was planted first.
  const slower = await run({ kind: 'speed' }, planted(undefined, { times }));
  assert.equal(slower.instead, 'q4_0');
  assert.deepEqual(Object.values(slower.weights), ['f32', ...layers.map(() => 'q4_0')]);
  assert.match(slower.solver, /^the policy q4_0/);
  close(slower.plan.measuredLoss!, lossOf(slower.weights));
  const [rival] = slower.rivals;
  assert.equal(rival!.name, 'q4_0');
  assert.ok(rival!.change.ratio > 1 && rival!.change.low > 1);
  const fast: Measures['race'] = async (plans) => plans.map((_, i) => turns(i === 0 ? 3 : 4));
  const faster = await run({ kind: 'speed' }, planted(undefined, { times, race: fast }));
  assert.equal(faster.instead, undefined);
  assert.equal(faster.weights['layers.0.attention.q'], 'q8_0');
});

test('of storages that are equally fast the better one is taken', async () => {
  const times: Measures['times'] = async ({ types }) =>
    types.map((type) => ({ rowMs: type === 'q4_0' ? 1 : 1.001, chunkRowMs: 0.1 }));
  const { weights } = await run(
    { kind: 'speed' },
    planted(undefined, { times, race: async (plans) => plans.map(() => turns(1)) }),
  );
  assert.deepEqual([...new Set(Object.values(weights))], ['f32']);
});

test('fixed policies are rows with the same numbers', async () => {
  const { policies } = await run({ kind: 'size', bytes: 220_000 });
  const named = Object.fromEntries(policies.map((policy) => [policy.name, policy]));
  assert.equal(named.none!.predictedLoss, 0);
  const all = (type: Storage): Record<string, Storage> => Object.fromEntries(units.map(({ name }) => [name, type]));
  // A table that is only looked up is no linear layer: policies leave it alone.
  const q8 = { ...all('q8_0'), embedding: 'f32' as const };
  assert.equal(named.q8_0!.bytes, bytesOf(q8) + 1000);
  close(named.q8_0!.predictedLoss, lossOf(q8));
  assert.equal(named['q8_0:min-dim=1024']!.bytes, named.none!.bytes);
});

test('few samples predict the rest, and the check says how well', async () => {
  const counts = { errors: 0, times: 0, losses: 0 };
  const { plan, prediction, choices } = await run({ kind: 'size', bytes: 220_000 }, planted(counts), memoryStore(), 4);
  assert.equal(prediction.samples, 4);
  // Four samples and the plan.
  assert.equal(counts.losses, 5);
  assert.ok(plan.predictedLoss > 0 && plan.measuredLoss! > 0);
  assert.equal(choices.flatMap(({ candidates }) => candidates.filter(({ measured }) => measured)).length, 4);
});

test('a run that was stopped continues with what it had measured, to the same plan', async () => {
  const budget = { kind: 'size', bytes: 220_000 } as const;
  const whole = await run(budget);
  const store = memoryStore();
  const counts = { errors: 0, times: 0, losses: 0 };
  const stopping = planted(counts, {
    loss: async (weights) => {
      if (++counts.losses > 3) throw new Error('killed');
      return lossOf(weights);
    },
  });
  await assert.rejects(run(budget, stopping, store), /killed/);
  const again = { errors: 0, times: 0, losses: 0 };
  const continued = await run(budget, planted(again), store);
  assert.deepEqual(continued.weights, whole.weights);
  assert.deepEqual(continued.plan, whole.plan);
  // Nine samples and the plan, of which three were there.
  assert.deepEqual(again, { errors: 0, times: 0, losses: 7 });
});

test('a plan file has the numbers of each weight, in a stable order, and is read back', async () => {
  const budget = { kind: 'size', bytes: 220_000 } as const;
  const context = {
    model: { type: 'gpt2', layers: 4, dim: 64, vocab: 512 },
    budget,
    budgetText: 'size=220kB',
    lossName: 'KL divergence',
    text: '512 tokens of a text',
    textHash: 'abc',
    calibrated: false,
    machine: 'a machine',
  };
  const texts = [];
  for (let i = 0; i < 2; i++) texts.push(formatStoragePlan(planOf(await run(budget), context)));
  assert.equal(texts[0], texts[1]);
  const plan = parseStoragePlan(texts[0]!, 'plan.json');
  assert.deepEqual(
    Object.keys(plan.weights),
    units.map(({ name }) => name),
  );
  const explained = plan.explain!['layers.2.ffn.up']!;
  assert.equal(
    explained.loss,
    sensitivity(units.find(({ name }) => name === 'layers.2.ffn.up')!) * errorOf[plan.weights['layers.2.ffn.up']!]!,
  );
  assert.match(explained.reason, /^adds [\d.e-]+; \w+ would/);
  assert.equal((plan.tuned!.plan as { bytes: number }).bytes, bytesOf(plan.weights) + 1000);
  assert.throws(() => checkStoragePlan({ ...plan, tuned: 7 }), {
    code: 'InvalidOption',
    message: /whose tuned is an object/,
  });
});

test('a report has the plan beside the policies, curves of loss by size and speed, and every layer', async () => {
  const tuned = await run({ kind: 'size', bytes: 220_000 });
  const report = tuneReport({
    tuned,
    model: 'a model',
    budget: 'size=220kB',
    lossName: 'KL divergence',
    text: '512 tokens of a text',
    command: 'lanewise tune',
    machine: [],
  });
  const charts = report.sections.flatMap(({ chart }) => chart ?? []);
  assert.deepEqual(
    charts.map(({ x }) => x.unit),
    ['MB', 'ms'],
  );
  for (const { series } of charts) {
    const [curve, policies, plan] = series;
    assert.ok(curve!.points.length > 3 && policies!.points.length > 3);
    assert.equal(plan!.points[0]!.y, tuned.plan.predictedLoss);
    // No policy and no plan lies below the curve.
    for (const { x, y } of [...policies!.points, ...plan!.points])
      assert.ok(
        curve!.points.every((point) => !(Number(point.x) >= Number(x) && point.y > y * (1 + 1e-9) + 1e-12)),
        `${x} ${y}`,
      );
  }
  const text = renderMarkdown(report);
  assert.match(text, /q8_0:min-dim=1024/);
  for (const { name } of units) assert.ok(text.includes(name));
  assert.match(renderHtml(report), /<canvas/);
});

test('errors of calibrated weights decide where calibration helps', async () => {
  // Calibration leaves a tenth of the error of q4_0 in the layers, and all of it in the table.
  const calibrated = planted(undefined, {
    calibratedRatios: async (some) =>
      some.map(({ kind, types }) => types.map((type) => (type === 'q4_0' && kind !== 'embedding' ? 0.1 : 1))),
  });
  const budget = { kind: 'loss', loss: 0.02 } as const;
  const [without, with_] = [await run(budget), await run(budget, { ...calibrated, planLoss: async () => 0.01 })];
  assert.ok(with_.plan.bytes < without.plan.bytes);
  const up = with_.choices.find(({ unit: { name } }) => name === 'layers.2.ffn.up')!;
  const q4 = up.candidates.find(({ type }) => type === 'q4_0')!;
  close(q4.outputError!, errorOf.q4_0! / 10);
  assert.equal(q4.measured, false);
});
