/** Rounds on a simulated machine: its clock moves by what the steps of the plan cost, with noise. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { roundsReport } from '../../src/cli/rounds-report.ts';
import { describeMachine } from '../../src/measure/machine.ts';
import { type Machine, measurePolicies } from '../../src/measure/policies.ts';
import { compareRounds, hasRegression, type Round } from '../../src/measure/rounds.ts';
import type { TurnRoofs } from '../../src/measure/saved.ts';
import { describeModel, embeddedModel, type ForwardReport, type ModelDescription } from '../../src/node.ts';
import { renderMarkdown } from '../../src/report/markdown.ts';
import { Random } from '../../src/sampling/random.ts';

const work = { prompt: 8, decode: 12, repeat: 12 };
const roofs: TurnRoofs = { read: 30e9, f32: 190e9, q8: 270e9 };

/** How much longer a matmul of round `round` takes than its bytes do. */
type Planted = (round: number, storage: string) => number;

interface Simulated {
  readonly rounds: Round[];
  readonly loads: number;
  readonly order: readonly number[];
  readonly roofs: readonly TurnRoofs[];
}

const descriptions = new Map<string, Promise<ModelDescription>>();
const describe = (policy: string): Promise<ModelDescription> => {
  const known = descriptions.get(policy) ?? describeModel(embeddedModel, policy);
  descriptions.set(policy, known);
  return known;
};

/** Milliseconds of one forward of one row: the bytes of each matrix at 10 GB/s. */
function costOf({ plan }: ModelDescription, round: number, planted: Planted): ForwardReport['phases'] & object {
  const times = { embedding: 0.01, layers: 0, norm: 0.002, projection: 0 };
  for (const step of plan.steps) {
    if (step.op !== 'matmul') continue;
    const weight = plan.weights[step.weight]!;
    const { storage, bytes } = weight.shares === undefined ? weight : plan.weights[weight.shares]!;
    times[weight.role === 'output' ? 'projection' : 'layers'] += (bytes / 10e6) * planted(round, storage);
  }
  return { ...times, total: times.embedding + times.layers + times.norm + times.projection };
}

async function simulate(
  policies: readonly string[],
  seed: number,
  planted: Planted = () => 1,
  memory: 'large' | 'small' = 'large',
): Promise<Simulated> {
  const random = new Random(seed);
  let [clock, speed, loads] = [0, 1, 0];
  const order: number[] = [];
  /** Neighbours resemble each other, and one turn in twenty is half as fast. */
  const next = (): number => {
    speed = 1 + 0.7 * (speed - 1) + 0.03 * (random.uniform() - 0.5);
    return speed * (random.uniform() < 0.05 ? 2 : 1);
  };
  const machine: Machine = {
    async load(_, { quantize }) {
      const round = loads++ % policies.length;
      const description = await describe(quantize as string);
      const cost = costOf(description, round, planted);
      let factor = 1;
      return {
        description,
        vectorBits: 256,
        threads: 2,
        contextLength: 512,
        maxRows: 64,
        decodeBytes: () => 1e6,
        explain: () => [],
        sequence() {
          order.push(round);
          factor = next();
          return { [Symbol.dispose]() {} };
        },
        async step(
          [{ tokens }]: [{ tokens: number[] }],
          { onReport }: { onReport?(report: ForwardReport): void } = {},
        ) {
          const phases = Object.fromEntries(
            Object.entries(cost).map(([name, ms]) => [name, ms * factor * tokens.length]),
          ) as unknown as typeof cost;
          clock += phases.total;
          onReport?.({ phases } as ForwardReport);
          return [];
        },
        async dispose() {},
      } as unknown as Awaited<ReturnType<Machine['load']>>;
    },
    roofs: async () => roofs,
    now: () => clock,
    freeMemory: () => (memory === 'large' ? 1e12 : 1),
  };
  const measured = await measurePolicies(
    embeddedModel,
    policies,
    {},
    { work, kernels: false, phases: 3, reload: true, check() {}, say() {}, machine },
  );
  return { rounds: compareRounds(measured.rows), loads, order, roofs: measured.roofs };
}

const verdicts = ({ rounds }: Simulated): unknown[] =>
  rounds
    .slice(1)
    .flatMap(({ metrics: { decode, prefill, projection } }) => [decode.verdict, prefill.verdict, projection.verdict]);

test('equal rounds are noise in at least 95 of 100 runs', async () => {
  let noise = 0;
  for (let seed = 1; seed <= 100; seed++) if (verdicts(await simulate(['q8_0', 'q8_0'], seed))[0] === 'noise') noise++;
  assert.ok(noise >= 95, `${noise} of 100`);
});

test('a kernel that takes a fifth longer is a regression, where it is used only', async () => {
  const slowQ8: Planted = (round, storage) => (round === 1 && storage === 'q8_0' ? 1.2 : 1);
  const all = await simulate(['q8_0', 'q8_0'], 7, slowQ8);
  assert.deepEqual(verdicts(all), ['regression', 'regression', 'regression']);
  assert.ok(hasRegression(all.rounds[1]!, 0.1) && !hasRegression(all.rounds[1]!, 0.5));
  // Of q8_0:min-dim=4096 only the output matrix is quantized.
  const output = await simulate(['q8_0:min-dim=4096', 'q8_0:min-dim=4096'], 7, slowQ8);
  assert.equal(verdicts(output)[2], 'regression');
  assert.ok(output.rounds[1]!.metrics.decode.change!.ratio < 1.1);
});

test('fewer bytes are a gain; a kernel so slow that they do not pay is a regression in the same place', async () => {
  assert.deepEqual(verdicts(await simulate(['f16', 'q8_0'], 3)), ['gain', 'gain', 'gain']);
  const overhead: Planted = (_, storage) => (storage === 'q8_0' ? 2.9 : 1);
  assert.deepEqual(verdicts(await simulate(['f16', 'q8_0'], 3, overhead)), ['regression', 'regression', 'regression']);
});

test('rounds take turns in alternating order, also where each must be loaded anew', async () => {
  const large = await simulate(['f16', 'q8_0'], 1);
  assert.equal(large.loads, 2);
  assert.deepEqual(large.order.slice(0, 8), [0, 1, 1, 0, 0, 1, 1, 0]);
  assert.equal(large.order.length, 2 * (work.repeat + 1));
  const small = await simulate(['f16', 'f16'], 1, undefined, 'small');
  assert.equal(small.loads, 2 * work.repeat);
  assert.equal(small.order.length, 4 * work.repeat);
  for (const { rounds } of [large, small])
    for (const round of rounds) assert.equal(round.times.turns.length, work.repeat);
});

test('the report has the layers and their reasons, every step, the comparison, and a sentence per round', async () => {
  const { rounds, roofs: rates } = await simulate(['none', 'q8_0', 'q8_0:min-dim=1024'], 5);
  const data = { name: 'stories', format: 'SafeTensors', command: 'lanewise bench rounds', kvCache: 'f32' };
  const machine = describeMachine(new Date(0));
  const report = roundsReport({ ...data, machine, work, reloaded: false, roofs: rates, rounds });
  const text = renderMarkdown(report);
  for (const words of [
    /^\| Memory read rate +\| 30\.0 GB\/s/m,
    /^\| Date +\| 1970-01-01T00:00:00\.000Z/m,
    /^- Round 3: q8_0:min-dim=1024\. 13 of 37 linear layers quantized, 7\.9 MB of weights \(-33 % bytes\): /m,
    /Against round 1 decode is a gain: -\d+\.\d % of the time \(95 % interval -\d+\.\d to -\d+\.\d %\)/,
    /^- Fastest decode: round 2: q8_0\. Against it round 1: none \+8\d\.\d % \(\+[\d.]+ to \+[\d.]+ %, regression\); round 3: q8_0:min-dim=1024 \+2\d\.\d % /m,
    /^\| Layers quantized +\| +0 of 37 \| +37 of 37 \| +13 of 37 \|$/m,
    /^\| attention q\/k\/v\/o \| +24 \| +256 → 256 \| no +\| f16 +\| 3\.1 MB \| max dim 256 < 1024/m,
    /^\| ffn up +\| +6 \| +256 → 1024 \| yes +\| q8_0 +\| 1\.7 MB \| max dim 1024 >= 1024/m,
    /^\| Total +\| +37 \| +\| 13 of 37 /m,
    /^\| 1 \(prefill\) \| /m,
    /^\| Decode per step, steady +\| +[\d.]+ms \| +[\d.]+ms \(-[\d.]+ %, -[\d.]+ to -[\d.]+ %\): gain \|/m,
    /Each of 12 turns ran every round once, in alternating order: a prefill of 8 tokens, then 12 decode steps\./,
  ])
    assert.match(text, words);
  // The prefill and three decode steps of each round.
  assert.equal(text.match(/^\| [234] +\| +[\d.]+ms/gm)?.length, 9);
  const phases = rounds[1]!.steps[1]!;
  assert.ok(Math.abs(phases.embedding + phases.layers + phases.norm + phases.projection - phases.total) < 1e-9);
});
