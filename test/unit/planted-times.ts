/** Times of linear layers made by a formula, in place of measurements. */
import type { ShapeTimes, TimeShapes } from '../../src/measure/shapes.ts';
import { type Storage, storageBytes, storageLayout } from '../../src/quant/storage.ts';

/** Numbers in [0, 1). */
export function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** @param msOf milliseconds of a layer */
export function plantedTimes(
  msOf: (type: Storage, shape: readonly [number, number], rows: number) => number,
  spread = 0.02,
): TimeShapes {
  return async ({ types, shapes, rows, from, turns = 12 }) => {
    const random = uniforms(7);
    const unique = [...new Map(shapes.map((shape) => [shape.join('x'), shape])).values()];
    return from.flatMap((place) =>
      unique.flatMap((shape) =>
        types
          .filter((type) => shape[1] % storageLayout[type].block === 0)
          .flatMap((type) =>
            rows.map((count): ShapeTimes => {
              const [out, inputs] = shape;
              const noise = (): number => 1 + spread * (random() - 0.5);
              return {
                ...{ type, shape, rows: count, from: place, measuredOut: out },
                bytes: out * storageBytes(type, inputs),
                operations: 2 * count * out * inputs,
                ms: Array.from({ length: turns }, () => msOf(type, shape, count) * noise()),
              };
            }),
          ),
      ),
    );
  };
}
