/** Type numbers of GGUF: of metadata values, and of tensors with their block sizes. */

export const valueTypes = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'float32',
  'bool',
  'string',
  'array',
  'uint64',
  'int64',
  'float64',
] as const;

/** In the order of their numbers in GGUF files, from 0. */
export type GgufValueType = (typeof valueTypes)[number];
export type GgufNumberType = Exclude<GgufValueType, 'bool' | 'string' | 'array'>;
export type GgufNumbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | BigUint64Array
  | BigInt64Array
  | Float64Array;

/** A metadata value with the type that the file gives it. */
export type GgufValue =
  /** A bigint for integers beyond 2^53. */
  | { readonly type: GgufNumberType; readonly value: number | bigint }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'array'; readonly of: 'string'; readonly value: readonly string[] }
  | { readonly type: 'array'; readonly of: 'bool'; readonly value: readonly boolean[] }
  | { readonly type: 'array'; readonly of: GgufNumberType; readonly value: GgufNumbers };

export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** Fewest bytes of a value: exact for numbers and bool, the length field of a string, type and length of an array. */
export const valueBytes: Readonly<Record<GgufValueType, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  bool: 1,
  string: 8,
  array: 12,
  uint64: 8,
  int64: 8,
  float64: 8,
};

interface TensorType {
  readonly id: number;
  /** Values per block and bytes per block of one row. */
  readonly block: number;
  readonly bytes: number;
}

/** Tensor types by their names in llama.cpp. Missing numbers were removed from the format. */
export const ggmlTypes = {
  F32: { id: 0, block: 1, bytes: 4 },
  F16: { id: 1, block: 1, bytes: 2 },
  Q4_0: { id: 2, block: 32, bytes: 18 },
  Q4_1: { id: 3, block: 32, bytes: 20 },
  Q5_0: { id: 6, block: 32, bytes: 22 },
  Q5_1: { id: 7, block: 32, bytes: 24 },
  Q8_0: { id: 8, block: 32, bytes: 34 },
  Q8_1: { id: 9, block: 32, bytes: 36 },
  Q2_K: { id: 10, block: 256, bytes: 84 },
  Q3_K: { id: 11, block: 256, bytes: 110 },
  Q4_K: { id: 12, block: 256, bytes: 144 },
  Q5_K: { id: 13, block: 256, bytes: 176 },
  Q6_K: { id: 14, block: 256, bytes: 210 },
  Q8_K: { id: 15, block: 256, bytes: 292 },
  IQ2_XXS: { id: 16, block: 256, bytes: 66 },
  IQ2_XS: { id: 17, block: 256, bytes: 74 },
  IQ3_XXS: { id: 18, block: 256, bytes: 98 },
  IQ1_S: { id: 19, block: 256, bytes: 50 },
  IQ4_NL: { id: 20, block: 32, bytes: 18 },
  IQ3_S: { id: 21, block: 256, bytes: 110 },
  IQ2_S: { id: 22, block: 256, bytes: 82 },
  IQ4_XS: { id: 23, block: 256, bytes: 136 },
  I8: { id: 24, block: 1, bytes: 1 },
  I16: { id: 25, block: 1, bytes: 2 },
  I32: { id: 26, block: 1, bytes: 4 },
  I64: { id: 27, block: 1, bytes: 8 },
  F64: { id: 28, block: 1, bytes: 8 },
  IQ1_M: { id: 29, block: 256, bytes: 56 },
  BF16: { id: 30, block: 1, bytes: 2 },
  TQ1_0: { id: 34, block: 256, bytes: 54 },
  TQ2_0: { id: 35, block: 256, bytes: 66 },
  MXFP4: { id: 39, block: 32, bytes: 17 },
  NVFP4: { id: 40, block: 64, bytes: 36 },
} as const satisfies Readonly<Record<string, TensorType>>;

export type GgmlType = keyof typeof ggmlTypes;

const byId = new Map<number, GgmlType>(Object.entries(ggmlTypes).map(([name, { id }]) => [id, name as GgmlType]));

/** Undefined for unknown and removed numbers. */
export const ggmlTypeOf = (id: number): GgmlType | undefined => byId.get(id);

/**
 * Bytes of a tensor; undefined if its rows (the last dimension of `shape`) are not whole blocks, Infinity beyond 2^53.
 */
export function ggmlBytes(type: GgmlType, shape: readonly number[]): number | undefined {
  const { block, bytes } = ggmlTypes[type];
  if ((shape.at(-1) ?? 1) % block !== 0) return undefined;
  let total = bytes / block;
  for (const size of shape) total *= size;
  return total <= Number.MAX_SAFE_INTEGER ? total : Number.POSITIVE_INFINITY;
}
