/** Writes protocol buffers, to make SentencePiece models from other vocabularies. */

const encoder = new TextEncoder();

function varint(value: number): number[] {
  const out: number[] = [];
  for (let rest = BigInt.asUintN(64, BigInt(value)); ; rest >>= 7n) {
    const low = Number(rest & 127n);
    if (rest < 128n) return [...out, low];
    out.push(low | 128);
  }
}

export const numberField = (field: number, value: number): number[] => [...varint(8 * field), ...varint(value)];

export function bytesField(field: number, value: Uint8Array | readonly number[]): number[] {
  return [...varint(8 * field + 2), ...varint(value.length), ...value];
}

export const floatField = (field: number, value: number): number[] => [
  ...varint(8 * field + 5),
  ...new Uint8Array(Float32Array.of(value).buffer),
];

export interface ModelToWrite {
  readonly pieces: readonly { readonly text: string; readonly score: number; readonly type: number }[];
  readonly trainer: readonly number[];
  readonly normalizer: readonly number[];
}

export function sentencePieceModel({ pieces, trainer, normalizer }: ModelToWrite): Uint8Array {
  const parts = pieces.map(({ text, score, type }) =>
    bytesField(1, [...bytesField(1, encoder.encode(text)), ...floatField(2, score), ...numberField(3, type)]),
  );
  parts.push(bytesField(2, trainer), bytesField(3, normalizer));
  return Uint8Array.from(parts.flat());
}
