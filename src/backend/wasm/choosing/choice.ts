/** Variants of kernels for one machine. Every choice gives the same bits; only the speed differs. */
import { type Iq4Dot, iq4Format, iq4UnpackedPanel } from '../../../kernels/iq4.ts';
import { type ActivationFormat, BLOCK, type Q8Layout, stepBytes } from '../../../kernels/layout.ts';
import { matmulKernel, type Panel } from '../../../kernels/matmul.ts';
import { formatPanel, formatRow } from '../../../kernels/matmul-block.ts';
import { floatPanel, floatRow, unpackLines } from '../../../kernels/matmul-float.ts';
import { kMatmulKernel, kPanel } from '../../../kernels/matmul-k.ts';
import { type Q4Dot, q4Format, q4UnpackedPanel } from '../../../kernels/q4.ts';
import { q8Format, q8WidenedPanel } from '../../../kernels/q8.ts';
import type { TileShape } from '../../../kernels/tile.ts';
import { isBlockStorage, kTypes, type Storage } from '../../../quant/storage.ts';
import type { Func, Module } from '../../../wasm/assembler.ts';

export interface Choice {
  /** 256-bit code. */
  readonly wide: boolean;
  /** How the integer products of q8_0 blocks are made, see kernels/q8.ts. */
  readonly q8: 'pairs' | 'quads';
  /** The same for storages with codes of 4 to 6 bits, see kernels/q4.ts. */
  readonly q4: Q4Dot;
  /** How the machine's relaxed dot product interprets the eighth bit of its 7-bit operand. */
  readonly eighthBit: 'unsigned' | 'signed';
  /** Tile shapes measured on this machine, see tune.ts. */
  readonly tiles?: Readonly<TileShapes>;
}

export type TileShapes = Partial<Record<Storage, TileShape>>;

/** Runs everywhere: no relaxed SIMD, 128 bits. */
export const portable: Choice = { wide: false, q8: 'pairs', q4: 'strict', eighthBit: 'signed' };

export const q8Layout = ({ q8, eighthBit }: Choice): Q8Layout =>
  q8 === 'pairs' ? { neighbours: 2, flip: 0 } : { neighbours: 4, flip: eighthBit === 'unsigned' ? 0x80 : 0 };

/** Key of an activation format, unique on one machine. */
export const formatKey = ({ values }: ActivationFormat): string => values;

/** Matrix product kernels of one storage. */
export interface ProductFamily {
  /** Quantization of the activations; undefined for float weights. */
  readonly activation: ActivationFormat | undefined;
  readonly shape: TileShape;
  /** Adds the inner kernel for many rows to the module. `columns`: columns per step of its weights. */
  panel(module: Module, shape: TileShape): Panel & { readonly columns: number };
  emit(module: Module): Func;
}

/** Tiles whose sums fit the registers; measured in bench/kernels. */
function defaultShape(storage: Storage, wide: boolean): TileShape {
  if (wide) return { tokens: isBlockStorage(storage) ? 4 : 5, lanes: 16 };
  return { tokens: isBlockStorage(storage) && !kTypes.includes(storage) ? 5 : 4, lanes: 8 };
}

/** Number of rows from which unpacking the weights first pays off. */
const UNPACKED_ROWS = 24;

export function productFamily(storage: Storage, choice: Choice): ProductFamily {
  const shape = choice.tiles?.[storage] ?? defaultShape(storage, choice.wide);
  const bytes = stepBytes(storage);
  switch (storage) {
    case 'q8_0': {
      const format = q8Format(q8Layout(choice));
      const widened = (m: Module, tile: TileShape) => q8WidenedPanel(m, tile, UNPACKED_ROWS);
      const pairs = choice.q8 === 'pairs';
      return {
        activation: format.activation,
        shape,
        panel: (m, tile) => ({ ...(pairs ? widened(m, tile) : formatPanel(m, format, tile)), columns: BLOCK }),
        emit: (m) =>
          matmulKernel(m, storage, bytes, {
            row: formatRow(m, format),
            // The second tile already finds the weights in the cache.
            panel: { ...formatPanel(m, format, shape), fetchedRows: pairs ? shape.tokens + 1 : undefined },
            unpacked: pairs ? widened(m, shape) : undefined,
          }),
      };
    }
    case 'q4_0': {
      const format = q4Format(choice.q4);
      const unpacked = (m: Module, tile: TileShape) => q4UnpackedPanel(m, choice.q4, tile, UNPACKED_ROWS);
      return {
        activation: format.activation,
        shape,
        panel: (m, tile) => ({ ...unpacked(m, tile), columns: BLOCK }),
        emit: (m) =>
          matmulKernel(m, storage, bytes, {
            row: formatRow(m, format),
            panel: formatPanel(m, format, shape),
            unpacked: unpacked(m, shape),
          }),
      };
    }
    case 'iq4_nl': {
      const dot: Iq4Dot = { relaxed: choice.q4 !== 'strict', q8: q8Layout(choice) };
      const format = iq4Format(dot);
      const unpacked = (m: Module, tile: TileShape) => iq4UnpackedPanel(m, dot, tile, 3);
      return {
        activation: format.activation,
        shape,
        panel: (m, tile) => ({ ...unpacked(m, tile), columns: BLOCK }),
        emit: (m) => matmulKernel(m, storage, bytes, { row: formatRow(m, format), unpacked: unpacked(m, shape) }),
      };
    }
    case 'q4_k':
    case 'q5_k':
    case 'q6_k':
      return {
        activation: { values: 'int8' },
        shape,
        panel: (m, tile) => ({ ...kPanel(m, storage, tile, choice.q4), columns: BLOCK }),
        emit: (m) => kMatmulKernel(m, storage, shape, choice.q4),
      };
    default:
      return {
        activation: undefined,
        shape,
        panel: (m, tile) => ({ ...floatPanel(m, 'f32', tile), columns: 1 }),
        emit: (m) =>
          matmulKernel(m, storage, bytes, {
            row: floatRow(m, storage),
            panel: floatPanel(m, storage, shape),
            unpacked:
              storage === 'f32'
                ? undefined
                : {
                    ...floatPanel(m, 'f32', shape),
                    unpack: unpackLines(m, storage),
                    steps: 1,
                    leastRows: UNPACKED_ROWS,
                  },
          }),
      };
  }
}
