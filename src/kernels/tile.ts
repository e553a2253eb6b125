/**
 * What the inner kernels of all matrix products share: their signature and the shape of their tiles.
 *
 *   kernel(x, xStride, w, out, outStride, steps, groups)
 *
 * computes `tokens` rows of x times `groups` lane groups of w (layout.ts), which are one sequential stream; steps along k
 * are columns for float formats and blocks for block formats, strides are bytes. out gets the plain sums.
 */
import type { Code, Func, Local, Module, Statement } from '../wasm/assembler.ts';

export interface TileShape {
  /** Rows of x per call. */
  readonly tokens: number;
  /** Lanes of a group done in one pass: 16, or 8 where sums of 16 exceed the registers. */
  readonly lanes: 8 | 16;
}

export interface Tile {
  readonly f: Func;
  readonly x: Local<'i32'>;
  readonly xStride: Local<'i32'>;
  readonly w: Local<'i32'>;
  readonly out: Local<'i32'>;
  readonly outStride: Local<'i32'>;
  readonly steps: Local<'i32'>;
  readonly groups: Local<'i32'>;
}

export function tileFunc(module: Module, name: string): Tile {
  const f = module.func(name, ['i32', 'i32', 'i32', 'i32', 'i32', 'i32', 'i32']);
  const [x, xStride, w, out, outStride, steps, groups] = [0, 1, 2, 3, 4, 5, 6].map((n) => f.param('i32', n)) as [
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
    Local<'i32'>,
  ];
  return { f, x, xStride, w, out, outStride, steps, groups };
}

/** Sets locals to values that are all computed before the first is set where they are stored side by side. */
export const setAll = <T extends 'v128' | 'i32'>(
  locals: readonly Local<T>[],
  value: (index: number) => Code<T>,
): Statement[] => locals.map((local, index) => local.set(value(index)));
