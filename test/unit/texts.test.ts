/** Texts decoded together equal texts decoded one by one. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { decodeText, decodeTexts } from '../../src/formats/texts.ts';

/** Pieces of bytes with other bytes in between, as lengths are in a file. */
function placed(pieces: readonly Uint8Array[]): [Uint8Array, Uint32Array, Uint32Array] {
  const starts: number[] = [];
  const bytes: number[] = [];
  for (const piece of pieces) {
    bytes.push(0xff);
    starts.push(bytes.length);
    bytes.push(...piece);
  }
  return [
    Uint8Array.from(bytes),
    Uint32Array.from(starts),
    Uint32Array.from(starts, (start, i) => start + pieces[i]!.length),
  ];
}

test('texts of any characters', () => {
  const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constantFrom('', '\ufeff', 'é', '😀', '▁the'));
  fc.assert(
    fc.property(fc.array(text), (texts) => {
      const encoder = new TextEncoder();
      assert.deepEqual(decodeTexts(...placed(texts.map((each) => encoder.encode(each)))), texts);
    }),
  );
});

test('one invalid text makes all invalid, even if the next text completes it', () => {
  const broken = new TextEncoder().encode('a😀');
  for (let cut = 2; cut < broken.length; cut++)
    assert.equal(decodeTexts(...placed([broken.subarray(0, cut), broken.subarray(cut)])), undefined);
  const piece = fc.uint8Array({ maxLength: 4 });
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 4 }), (pieces) => {
      const alone = pieces.map(decodeText);
      assert.deepEqual(decodeTexts(...placed(pieces)), alone.includes(undefined) ? undefined : alone);
    }),
    { numRuns: 1000 },
  );
});
