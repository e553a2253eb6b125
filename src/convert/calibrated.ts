/** Quantizes tensors of a new file by calibration: finds the rows of the plan's matrices in them. */
import { type CalibratedStorage, calibrate, calibratedTypes, sourceKey } from '../calibrate/calibrate.ts';
import { calibrationTexts } from '../calibrate/texts.ts';
import type { ModelSource } from '../engine/load.ts';
import { type OpenModel, openModel } from '../engine/open.ts';
import { withinVocabulary } from '../engine/tokenizer.ts';
import { makeTokenizer, readTokenizerSource } from '../engine/tokenizer-source.ts';
import { LanewiseError } from '../errors.ts';
import { countOf, fileRow } from '../formats/views.ts';
import { STACKED } from '../models/file-tensors.ts';
import { buildModel, type ModelDescription } from '../models/index.ts';
import { parsePolicy } from '../models/policy.ts';
import { type PlannedWeight, sourceRow } from '../plan/step.ts';
import type { Recipe } from './convert.ts';

export interface CalibrationText {
  readonly text: string;
  /** Name of the file, for messages. */
  readonly name: string;
  /** Most tokens of it that are used. Default: 16384. */
  readonly tokens?: number | undefined;
}

export interface CalibrateSettings {
  readonly threads?: number | undefined;
  readonly onCalibrated?: ((done: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

const TOKENS = 16384;
/** Tokens of a piece of the text. */
const LENGTH = 512;

/** The recipes, those of matrices in a calibrated type with their blocks. @throws ModelError, OptionError, LanewiseError */
export async function calibrateRecipes(
  { folder, file, host }: Pick<ModelSource, 'folder' | 'file' | 'host'>,
  recipes: readonly Recipe[],
  { text, name, tokens = TOKENS }: CalibrationText,
  { threads, onCalibrated, signal }: CalibrateSettings,
): Promise<Recipe[]> {
  const model = await openModel(folder, file);
  try {
    const description = buildModel(model.config, model.tensors, {
      policy: parsePolicy('f32'),
      origin: model.origin,
      headDiffers: model.headDiffers,
    });
    const source = await readTokenizerSource(folder, model);
    const whole = source && makeTokenizer(source);
    if (!whole)
      throw new LanewiseError(
        'NoTokenizer',
        `${folder.name}: expected a tokenizer for the text of ${name}, found none`,
      );
    const { vocab, contextLength } = description.config;
    const tokenizer = withinVocabulary(whole, vocab, folder.name);
    const length = Math.min(LENGTH, contextLength);
    const texts = calibrationTexts(tokenizer, text, { option: 'calibrate', length, tokens });
    const places = new RowPlaces(recipes, description, model);
    const done = await calibrate({
      model,
      host,
      threads,
      texts,
      storageOf: (weight) => places.storageOf(weight),
      onProgress: onCalibrated,
      signal,
    });
    return recipes.map((recipe) => {
      const rows = places.rowsOf(recipe);
      if (!rows) return recipe;
      const sources = rows.map(({ key, row }) => ({ weight: done.get(key)!, row }));
      const rowBytes = sources[0]!.weight.bytes.length / sources[0]!.weight.weight.shape[0]!;
      const blocks = (first: number, count: number): Uint8Array<ArrayBuffer> => {
        const out = new Uint8Array(count * rowBytes);
        for (let r = 0; r < count; r++) {
          const { weight, row } = sources[first + r]!;
          out.set(weight.bytes.subarray(row * rowBytes, (row + 1) * rowBytes), r * rowBytes);
        }
        return out;
      };
      return { ...recipe, blocks, reason: `${recipe.reason}, calibrated` };
    });
  } finally {
    await model.close();
  }
}

/** A row of a matrix of the plan. */
interface RowPlace {
  /** See sourceKey. */
  readonly key: string;
  readonly row: number;
}

class RowPlaces {
  /** Rows by the recipe of their tensor, for recipes of which every row belongs to a matrix. */
  readonly #rows = new Map<Recipe, readonly RowPlace[]>();
  readonly #storage = new Map<string, CalibratedStorage>();

  constructor(recipes: readonly Recipe[], { plan }: ModelDescription, model: OpenModel) {
    const owners = new Map<string, Map<number, RowPlace>>();
    for (const weight of plan.weights) {
      if (weight.shape.length !== 2 || weight.shares !== undefined) continue;
      const key = sourceKey(weight);
      const { tensor, rowOf } = placeOf(weight, model);
      const rows = owners.get(tensor) ?? new Map<number, RowPlace>();
      owners.set(tensor, rows);
      for (let row = 0; row < weight.shape[0]!; row++) rows.set(rowOf(row), { key, row });
    }
    for (const recipe of recipes) {
      if (recipe.to === undefined || !calibratedTypes.includes(recipe.to) || recipe.sources.length === 0) continue;
      const count = countOf(recipe.shape.slice(0, -1)) / recipe.sources.length;
      const rows = recipe.sources.flatMap(({ name }) =>
        Array.from({ length: count }, (_, row) =>
          owners.get(name)?.get(fileRow({ firstRow: 0, rows: recipe.rows }, row)),
        ),
      );
      if (rows.includes(undefined)) continue;
      this.#rows.set(recipe, rows as RowPlace[]);
      for (const { key } of rows as RowPlace[]) this.#storage.set(key, recipe.to as CalibratedStorage);
    }
  }

  rowsOf(recipe: Recipe): readonly RowPlace[] | undefined {
    return this.#rows.get(recipe);
  }

  storageOf(weight: PlannedWeight): CalibratedStorage | undefined {
    return this.#storage.get(sourceKey(weight));
  }
}

/** The tensor of the file that has a matrix, and the row there of each of its rows. */
function placeOf({ source }: PlannedWeight, model: OpenModel): { tensor: string; rowOf(row: number): number } {
  const [whole, part] = source.tensor.split(STACKED) as [string, string?];
  const view = model.viewOf?.(whole);
  if (part !== undefined) return { tensor: source.tensor, rowOf: (row) => row };
  if (!view) return { tensor: whole, rowOf: (row) => sourceRow(source, row) };
  return { tensor: view.source, rowOf: (row) => fileRow(view, sourceRow(source, row)) };
}
