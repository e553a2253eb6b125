/** The units of a storage plan: weights that get one storage, because they share a tensor of the file or a table in memory. */
import type { PlannedWeight, WeightRole } from '../plan/step.ts';
import { type Storage, storageBytes, storageLayout } from '../quant/storage.ts';

/** A matrix of a unit. */
export interface UnitMatrix {
  /** Name in the plan. */
  readonly name: string;
  readonly role: WeightRole;
  /** [out, in] */
  readonly shape: readonly [out: number, inputs: number];
  /** Products with it per row: 0 for a table that is only looked up, top / experts for an expert. */
  readonly uses: number;
  /** Storage if the file's types are kept. */
  readonly stored: Storage;
}

export interface Unit {
  /** Name of its first matrix. */
  readonly name: string;
  /** Kind of layer, regardless of its number: `ffn.up`, `attention.q/k/v`. */
  readonly kind: string;
  /** Undefined for tables and the output head. */
  readonly layer: number | undefined;
  readonly matrices: readonly UnitMatrix[];
  /** Names in the plan that get the storage: of its matrices and of what shares their bytes. */
  readonly weights: readonly string[];
  /** Storages whose blocks divide all rows. */
  readonly types: readonly Storage[];
  /** Storage of the file if it is one of `types` and all matrices have it: choosing it loses nothing. */
  readonly stored: Storage | undefined;
}

/** What one storage of a unit costs. */
export interface Candidate {
  readonly type: Storage;
  /** In the file that `quantize` writes, with its padding. */
  readonly bytes: number;
  /** Squared error of the weights, relative to their squares. */
  readonly weightError: number;
  /** Squared error of the output on a text, relative to its squares; undefined: not measured. */
  readonly outputError?: number | undefined;
  /** Milliseconds of one row, and of one row in a chunk; undefined: not measured. */
  readonly rowMs?: number | undefined;
  readonly chunkRowMs?: number | undefined;
  /** Part in the loss of the model: predicted, or measured with this unit alone in this storage. */
  readonly loss: number;
  readonly measured?: boolean | undefined;
}

/** A unit with its candidates, in the order of `unit.types`. */
export interface Choices {
  readonly unit: Unit;
  readonly candidates: readonly Candidate[];
}

/** Position of the storage of each unit in its candidates. */
export type Picks = readonly number[];

export const pickedOf = (choices: readonly Choices[], picks: Picks): Candidate[] =>
  choices.map(({ candidates }, i) => candidates[picks[i]!]!);

/** Alignment of tensors in a GGUF file. */
export const padded = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Bytes of a unit in a file, where its matrices lie in one tensor. */
export const unitBytes = ({ matrices }: Pick<Unit, 'matrices'>, type: Storage, alignment: number): number =>
  padded(
    matrices.reduce((sum, { shape: [out, inputs] }) => sum + out * storageBytes(type, inputs), 0),
    alignment,
  );

/** The storages of the units by the names of weights. */
export function weightsOf(choices: readonly Choices[], picks: Picks): Record<string, Storage> {
  return Object.fromEntries(
    choices.flatMap(({ unit, candidates }, i) =>
      unit.weights.map((name): [string, Storage] => [name, candidates[picks[i]!]!.type]),
    ),
  );
}

const LAYER = /^layers\.(\d+)\./;

/**
 * Makes units of a plan's matrices.
 * @param weights of a plan in which every weight is stored as in the file
 * @param groups names of weights that lie in one tensor; weights in no group are left out
 * @param uses products with each matrix per row, by name
 * @param types to choose from
 */
export function unitsOf(
  weights: readonly PlannedWeight[],
  groups: readonly (readonly string[])[],
  uses: ReadonlyMap<string, number>,
  types: readonly Storage[],
): Unit[] {
  const byName = new Map(weights.map((weight) => [weight.name, weight]));
  return groups.map((names): Unit => {
    const own = names.map((name) => byName.get(name)!).filter(({ shares }) => shares === undefined);
    const matrices = own.map(({ name, role, shape, storage }): UnitMatrix => {
      const sharing = names.map((other) => byName.get(other)!).filter(({ shares }) => shares !== undefined);
      const all = [name, ...sharing.map((other) => other.name)];
      const count = all.reduce((sum, other) => sum + (uses.get(other) ?? 0), 0);
      return { name, role, shape: shape as [number, number], uses: count, stored: storage };
    });
    const [first] = matrices as [UnitMatrix, ...UnitMatrix[]];
    const fits = (type: Storage): boolean =>
      matrices.every(({ shape: [, inputs] }) => inputs % storageLayout[type].block === 0);
    const allowed = types.filter(fits);
    const layer = LAYER.exec(first.name)?.[1];
    return {
      name: first.name,
      kind: kindOf(names),
      layer: layer === undefined ? undefined : Number(layer),
      matrices,
      weights: names,
      types: allowed,
      stored: matrices.every(({ stored }) => stored === first.stored)
        ? allowed.find((t) => t === first.stored)
        : undefined,
    };
  });
}

/** `attention.q/k/v`, `ffn.N.up` */
function kindOf(names: readonly string[]): string {
  const kinds = [...new Set(names.map((name) => name.replace(LAYER, '').replace(/\b\d+\b/g, 'N')))];
  const [first = ''] = kinds;
  const stem = first.slice(0, first.lastIndexOf('.') + 1);
  if (kinds.length === 1 || !kinds.every((kind) => kind.startsWith(stem))) return kinds.join('/');
  return `${stem}${kinds.map((kind) => kind.slice(stem.length)).join('/')}`;
}
