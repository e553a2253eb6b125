/** Reads the lists that `lanewise bench crossover` takes. */
import { OptionError } from '../errors.ts';
import { type Storage, storageLayout } from '../quant/storage.ts';
import type { Shape, WeightPlace } from './shapes.ts';

const storages = Object.keys(storageLayout) as Storage[];
const MOST_DIM = 2 ** 20;
/** Dimensions of a range are multiples of these, so that rows are whole blocks. */
const [SMALL_STEP, LARGE_STEP] = [32, 256];

const listOf = (text: string): string[] => text.split(',').map((part) => part.trim().toLowerCase());
const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

/** `f32,q8_0` @throws OptionError */
export function parseTypes(text: string): Storage[] {
  const types = listOf(text).map((name): Storage => {
    const known = storages.find((storage) => storage === name);
    if (known === undefined) throw new OptionError('types', `among ${storages.join(', ')}`, name);
    return known;
  });
  return unique(types);
}

/** `64..8192`, `768,1024,50k`; a range has the powers of two, the middles between them, and its ends. @throws OptionError */
export function parseDims(text: string): number[] {
  const expected = `dimensions from 1 to ${MOST_DIM} such as 768,1024,50k, or ranges such as 64..8192`;
  const one = (part: string): number => {
    const [, count, kilo] = /^(\d{1,7})(k?)$/.exec(part) ?? [];
    const dim = Number(count) * (kilo ? 1000 : 1);
    if (!(dim >= 1 && dim <= MOST_DIM)) throw new OptionError('dims', expected, text);
    return dim;
  };
  const dims = listOf(text).flatMap((part) => {
    const [from, to, ...more] = part.split('..');
    if (to === undefined) return [one(part)];
    const [first, last] = [one(from!), one(to)];
    if (more.length > 0 || first > last) throw new OptionError('dims', expected, text);
    return range(first, last);
  });
  return unique(dims).toSorted((a, b) => a - b);
}

function range(first: number, last: number): number[] {
  const between: number[] = [];
  for (let power = 1; power <= last; power *= 2) between.push(power, power * 1.5);
  const whole = (dim: number): number => {
    const step = dim < 4 * LARGE_STEP ? SMALL_STEP : LARGE_STEP;
    return Math.max(SMALL_STEP, Math.floor(dim / step) * step);
  };
  return unique([first, ...between.filter((dim) => dim > first && dim < last), last].map(whole));
}

/** `768x3072`: out x in. @throws OptionError */
export function parseShapes(text: string): Shape[] {
  return listOf(text).map((part): Shape => {
    const [, out, inputs] = /^(\d{1,7})x(\d{1,7})$/.exec(part) ?? [];
    const shape: Shape = [Number(out), Number(inputs)];
    if (!shape.every((size) => size >= 1 && size <= MOST_DIM))
      throw new OptionError('shapes', `OUTxIN such as 3072x768, up to ${MOST_DIM}`, part);
    return shape;
  });
}

/** `1,128` @throws OptionError */
export const parseRows = (text: string): number[] =>
  unique(
    listOf(text).map((part) => {
      const rows = /^\d{1,5}$/.test(part) ? Number(part) : 0;
      if (rows < 1) throw new OptionError('rows', 'numbers of rows such as 1,128', text);
      return rows;
    }),
  );

/** `memory,cache` @throws OptionError */
export const parsePlaces = (text: string): WeightPlace[] =>
  unique(
    listOf(text).map((place): WeightPlace => {
      if (place !== 'memory' && place !== 'cache') throw new OptionError('from', 'memory, cache or both', text);
      return place;
    }),
  );
