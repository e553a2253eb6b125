/**
 * How much of the output error calibration leaves, by kind of layer and type: measured for one layer of each kind on rows of the
 * text that its second moments were not made of.
 */

import { chooseKernels } from '../../backend/wasm/choosing/probe.ts';
import { Algebra, type FeedbackType, mixedWithIdentity } from '../../calibrate/algebra.ts';
import { calibratedTypes, DAMPING, TABLE_IDENTITY } from '../../calibrate/calibrate.ts';
import { encodeBlocks } from '../../calibrate/encode.ts';
import { dequantize } from '../../quant/codec.ts';
import type { Storage } from '../../quant/storage.ts';
import type { Unit } from '../unit.ts';
import { InputRows } from './inputs.ts';
import { matrixErrors, relative, rounded } from './matrix-errors.ts';
import { readRows } from './matrix-rows.ts';
import type { OpenedModel } from './open-model.ts';
import { planWith, type RunSettings, runTexts } from './runs.ts';

/** Rows of the matrix. */
const ROWS = 64;
/** One row of the text of so many is kept back to judge by. */
const HELD_BACK = 4;
/** Tokens whose logits are computed, for the inputs of the output head. */
const HEAD_TOKENS = 1024;

/** Error after calibration by error after rounding: by unit, then by type; 1 for types and units that are not calibrated. */
export async function calibratedRatios(
  model: OpenedModel,
  units: readonly Unit[],
  texts: readonly (readonly number[])[],
  settings: RunSettings,
): Promise<number[][]> {
  const { host, threads = host.cores } = settings;
  const weights = new Map(model.description.plan.weights.map((weight) => [weight.name, weight]));
  const inputOf = ({ weights: names, matrices }: Unit): string =>
    names.includes('output') ? 'output' : matrices[0]!.name;
  const all = texts.reduce((sum, { length }) => sum + length, 0);
  const inputs = new InputRows(planWith(model, {}), new Set(units.map(inputOf)), { tokens: all, kept: all });
  let seen = 0;
  const headTexts = texts.findIndex(({ length }) => (seen += length) > HEAD_TOKENS);
  await runTexts(
    model,
    inputs.plan,
    texts,
    settings,
    (rows) => inputs.add(rows),
    (text) => (headTexts < 0 || text <= headTexts ? 'all' : true),
  );
  const types = calibratedTypes.filter((type) => units.some((unit) => unit.types.includes(type as Storage)));
  const algebra = await Algebra.open(host, {
    threads,
    wide: chooseKernels(host).wide,
    types: types as FeedbackType[],
  });
  try {
    const ratios: number[][] = [];
    for (const unit of units) {
      settings.signal?.throwIfAborted();
      const own = unit.types.filter((type) => types.includes(type) && type !== unit.stored);
      const x = unit.matrices.length > 1 && unit.kind.includes('N') ? undefined : inputs.of(inputOf(unit));
      const { shape, source } = weights.get(unit.matrices[0]!.name)!;
      const width = shape[1]!;
      if (x === undefined || own.length === 0 || width % 32 !== 0 || x.length < HELD_BACK * width) {
        ratios.push(unit.types.map(() => 1));
        continue;
      }
      const [learned, judged] = split(x, width);
      const moments = await algebra.moments(width, [learned]);
      const tied = unit.weights.includes('embedding') && unit.weights.includes('output');
      await algebra.factor(tied ? mixedWithIdentity(moments, TABLE_IDENTITY) : moments, DAMPING, unit.name);
      const rows = await readRows({ shape, source }, model.files.tensor(source.tensor), ROWS);
      const calibrated = new Map<Storage, Float32Array>();
      for (const type of own) {
        const codes = await algebra.quantize(type as FeedbackType, rows.values);
        calibrated.set(type, dequantize(type, encodeBlocks(type as FeedbackType, codes)));
      }
      const errors = matrixErrors(rows, own, judged, (type) => calibrated.get(type)!);
      const plain = matrixErrors(rows, own, judged, rounded);
      ratios.push(
        unit.types.map((type) => {
          const at = own.indexOf(type);
          if (at < 0) return 1;
          const before = relative([plain[at]!.output!]);
          return before === 0 ? 1 : relative([errors[at]!.output!]) / before;
        }),
      );
    }
    return ratios;
  } finally {
    await algebra.close();
  }
}

/** Rows to learn from, and some between them to judge by. */
function split(rows: Float32Array, width: number): [Float32Array, Float32Array] {
  const count = rows.length / width;
  const parts: [number[], number[]] = [[], []];
  for (let row = 0; row < count; row++) parts[row % HELD_BACK === HELD_BACK - 1 ? 1 : 0].push(row);
  const most = [count, 128];
  return parts.map((places, i) => {
    const chosen = places.slice(0, most[i]!);
    const out = new Float32Array(chosen.length * width);
    for (const [at, row] of chosen.entries()) out.set(rows.subarray(row * width, (row + 1) * width), at * width);
    return out;
  }) as [Float32Array, Float32Array];
}
