/** Tuning of small models: units, sizes of files, losses, an interrupted run. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import type { ModelSource } from '../../src/engine/load.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { describeModel, quantizeModel } from '../../src/node.ts';
import type { Storage } from '../../src/quant/storage.ts';
import { openForTuning } from '../../src/tune/measuring/open-model.ts';
import { type TuneOptions, tuneModel } from '../../src/tune/measuring/tune-node.ts';
import type { Unit } from '../../src/tune/unit.ts';

const golden = (name: string): string => fileURLToPath(new URL(`../golden/${name}`, import.meta.url));
/** Kernels are checked once. */
let noted: string | undefined;
const notes = { machine: 'this', read: () => noted, write: (text: string) => void (noted = text) };
const source = (name: string): ModelSource => ({ folder: nodeFolder(golden(name)), host: { ...nodeHost(), notes } });

async function temporary(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lanewise-tune-'));
  t.after(() => rm(folder, { recursive: true }));
  return folder;
}

const valuesOf = (matrices: Unit['matrices']): number =>
  matrices.reduce((sum, { shape: [out, inputs] }) => sum + out * inputs, 0);

/** Times by bytes of a row: no machine is measured. */
const times: TuneOptions['times'] = async ({ types }) =>
  types.map((type) => ({ rowMs: type === 'f32' ? 4 : 1, chunkRowMs: 0.1 }));

const options = (folder: string, changes: Partial<TuneOptions> = {}): TuneOptions => ({
  budget: { kind: 'size', bytes: 1e9 },
  budgetText: 'size=1GB',
  cache: join(folder, 'plan.measured.json'),
  tokens: 24,
  samples: 3,
  backend: 'reference',
  times,
  ...changes,
});

for (const [name, kinds] of [
  ['models/mixtral', ['ffn.N.gate', 'ffn.N.up', 'ffn.N.down', 'output', 'embedding']],
  ['models/phi3', ['attention.q/k/v', 'ffn.gate/up', 'ffn.down', 'output']],
  ['models/qwen2', ['embedding/output', 'attention.q', 'ffn.down']],
  ['encoders/bert', ['embedding', 'attention.o', 'ffn.up']],
] as const)
  test(`${name}: a tensor's weights are one unit, and the size of the file is known before it is written`, async (t) => {
    const folder = await temporary(t);
    const opened = await openForTuning(nodeFolder(golden(name)));
    await opened.close();
    const found = new Set(opened.units.map(({ kind }) => kind));
    for (const kind of kinds) assert.ok(found.has(kind), `${kind} of ${[...found].join(', ')}`);
    const least = opened.fixedBytes;
    // Between the smallest types and floats, so that types are mixed.
    const bytes = opened.fixedBytes + opened.units.reduce((sum, { matrices }) => sum + 1.2 * valuesOf(matrices), 0);
    const { tuned, plan } = await tuneModel(source(name), options(folder, { budget: { kind: 'size', bytes } }));
    assert.ok(new Set(Object.values(plan.weights)).size > 1 && tuned.plan.bytes <= bytes);
    assert.ok(tuned.plan.bytes > least);
    for (const { unit } of tuned.choices)
      assert.equal(new Set(unit.weights.map((weight) => plan.weights[weight])).size, 1, unit.name);
    const file = join(folder, 'model.gguf');
    await quantizeModel(golden(name), file, { to: 'q8_0', policy: plan });
    assert.equal((await stat(file)).size, tuned.plan.bytes);
    // The plan fits the model, and the model in the new file.
    for (const path of [golden(name), file]) {
      const { plan: planned } = await describeModel(path, plan);
      for (const weight of planned.weights)
        if (weight.name in plan.weights) assert.equal(weight.storage, plan.weights[weight.name], weight.name);
    }
  });

test('of a model that GGUF cannot hold, sizes are those of the weights in memory', async (t) => {
  const folder = await temporary(t);
  const { tuned, plan, notWritable } = await tuneModel(source('models/qwen3-moe'), options(folder));
  assert.match(notWritable!, /qwen3_moe: the model cannot be written as GGUF/);
  const { plan: planned } = await describeModel(golden('models/qwen3-moe'), plan);
  assert.equal(
    tuned.plan.bytes,
    planned.weights.reduce((sum, { bytes }) => sum + bytes, 0),
  );
});

test('the more bytes, the less loss, down to none with the storages of the file', async (t) => {
  const folder = await temporary(t);
  const losses: number[] = [];
  const { units, fixedBytes, close } = await openForTuning(nodeFolder(golden('models/gemma3')));
  await close();
  assert.ok(units.length > 3);
  const sizes = await tuneModel(source('models/gemma3'), options(folder));
  const [least, most] = [sizes.tuned.bySize[0]!.bytes, sizes.tuned.plan.bytes];
  assert.ok(fixedBytes < least && least < most);
  assert.equal(sizes.tuned.plan.measuredLoss, 0);
  for (const bytes of [least, 1.4 * least, most]) {
    const { tuned, known } = await tuneModel(
      source('models/gemma3'),
      options(folder, { budget: { kind: 'size', bytes } }),
    );
    assert.ok(known > 0 && tuned.plan.bytes <= bytes);
    losses.push(tuned.plan.measuredLoss!);
  }
  assert.ok(losses[0]! > losses[1]! && losses[1]! > losses[2]!, losses.join(' > '));
});

test('an interrupted run continues to the same plan; other weights, texts or --fresh measure anew', async (t) => {
  const folder = await temporary(t);
  const budget = { kind: 'size', bytes: 400_000 } as const;
  const stopped = new AbortController();
  const partial = tuneModel(
    source('models/gemma3'),
    options(folder, {
      budget,
      signal: stopped.signal,
      onProgress: (stage, done) => {
        if (stage === 'samples' && done === 2) stopped.abort(new Error('stopped'));
      },
    }),
  );
  await assert.rejects(partial, /stopped/);
  const cache = JSON.parse(await readFile(join(folder, 'plan.measured.json'), 'utf8'));
  assert.equal(cache.format, 'lanewise-tune');
  const continued = await tuneModel(source('models/gemma3'), options(folder, { budget }));
  assert.ok(continued.known > 0);
  const whole = await tuneModel(source('models/gemma3'), options(folder, { budget, fresh: true }));
  assert.equal(whole.known, 0);
  assert.deepEqual(continued.plan, whole.plan);
  const other = await tuneModel(source('models/gemma3'), options(folder, { budget, tokens: 20 }));
  // Times do not depend on the text.
  assert.equal(other.known, Object.keys(cache.machine.values).length);
});

test('an encoder has a distance, not a divergence', async (t) => {
  const folder = await temporary(t);
  await assert.rejects(
    tuneModel(source('encoders/bert'), options(folder, { budget: { kind: 'loss', loss: 0.1 }, budgetText: 'kl=0.1' })),
    { code: 'InvalidOption', message: /distance=N for an encoder/ },
  );
  const { tuned, lossName } = await tuneModel(
    source('encoders/bert'),
    options(folder, { budget: { kind: 'loss', loss: 1e-4 }, budgetText: 'distance=0.0001' }),
  );
  assert.equal(lossName, 'cosine distance');
  assert.ok(tuned.plan.measuredLoss! <= 1e-4);
  assert.ok(tuned.plan.bytes < tuned.policies.find(({ name }) => name === 'none')!.bytes);
});

test('a type whose blocks do not divide the rows is no candidate', async () => {
  const { units, close } = await openForTuning(nodeFolder(golden('models/gemma3')));
  await close();
  const types = new Set<Storage>(units.flatMap((unit) => unit.types));
  for (const { types: own, matrices } of units)
    for (const { shape } of matrices) assert.equal(own.includes('q4_k'), shape[1] % 256 === 0);
  assert.ok(types.has('q8_0'));
});

test('with a text, weights are calibrated, and the loss is that of the written file', async (t) => {
  const folder = await temporary(t);
  const text = { text: 'The old lighthouse keeper counted the ships by their lamps. '.repeat(15), name: 'text.txt' };
  const quantized = join(folder, 'model.gguf');
  const { units, fixedBytes, close } = await openForTuning(nodeFolder(golden('models/qwen2')));
  await close();
  const bytes = fixedBytes + units.reduce((sum, { matrices }) => sum + 0.6 * valuesOf(matrices), 0);
  const changes = { budget: { kind: 'size', bytes } as const, text, quantized, threads: 1, tokens: 64, samples: 1 };
  const { tuned, plan, calibrated } = await tuneModel(source('models/qwen2'), options(folder, changes));
  assert.equal(calibrated, true);
  assert.equal(plan.tuned!.calibrated, true);
  assert.equal((await stat(quantized)).size, tuned.plan.bytes);
  const { plan: written } = await describeModel(quantized);
  for (const { name, storage } of written.weights)
    if (name in plan.weights) assert.equal(storage, plan.weights[name], name);
  // The same types as by rounding, other codes.
  const rounded = join(folder, 'rounded.gguf');
  await quantizeModel(golden('models/qwen2'), rounded, { to: 'q8_0', policy: plan });
  assert.notDeepEqual(await readFile(rounded), await readFile(quantized));
  assert.ok(tuned.plan.measuredLoss! > 0);
});
