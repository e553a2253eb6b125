/** Writes keys and values of new rows into their pages (kv.ts), stored as src/quant/kv-cache.ts defines. */
import { KV_BLOCK, LARGEST_F16 } from '../quant/kv-cache.ts';
import {
  add,
  and,
  constant,
  type Func,
  f32,
  f32Div,
  hoistedConstant,
  type I32,
  i8,
  i16,
  type Local,
  load8u,
  load16u,
  loadF32,
  loadI32,
  type Module,
  multiply,
  repeat,
  type Statement,
  shiftLeft,
  shiftRight,
  smaller,
  store8,
  store16,
  storeF32,
  subtract,
  type V128,
  v,
} from '../wasm/assembler.ts';
import { roundToF16 } from './convert.ts';
import {
  codeOrder,
  headBytes,
  type KvHead,
  keyBytes,
  keyGroupBytes,
  lineBytes,
  PAGE,
  pageAddress,
  scaleBytes,
  valueScaleBytes,
} from './kv.ts';
import { computeLine, eachRow, LINE, line, rowWise, span, strideOf } from './loops.ts';
import { blockCodes } from './quantize-rows.ts';
import { bitsOf, recordLayout } from './record.ts';

/**
 * k, v: rows of kvHeads * headDim; rows: address of the row count; sequences, positions: i32 for each row; tables: for each
 * sequence the address of its page table, i32 page numbers; pageBase: address of page 0 of this cache; pageStride: bytes
 * from a page to the next.
 */
export const appendKvRecord = recordLayout(
  'k',
  'v',
  'rows',
  'sequences',
  'positions',
  'tables',
  'pageBase',
  'pageStride',
  'kvHeads',
);

/** The name that `appendKvKernel` exports. */
export const appendKvName = ({ headDim, storage }: KvHead): string => `append_kv_${headDim}_${storage}`;

/** Source and destination of the new keys or values of one head. */
interface Places {
  /** Address of the head's keys or values in the row; advances. */
  readonly from: Local<'i32'>;
  /** Address in the page: the lines of 16 positions of K, or V. */
  readonly base: I32;
  /** The position's number in its page. */
  readonly place: I32;
}

/** Exports the step kernel `appendKvName(head)`: k and v of each row into its sequence's page at its position. */
export function appendKvKernel(module: Module, head: KvHead): Func {
  const { headDim, storage } = head;
  const kernel = rowWise(module, appendKvName(head), appendKvRecord);
  const { f, first, word } = kernel;
  const kvHeads = kernel.argument('kvHeads');
  const [stride, number, position, place] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const [k, value, page, from] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const ofRow = (name: 'sequences' | 'positions'): I32 => loadI32(add(word(name), shiftLeft(first.get, constant(2))));
  const store = { f32: storePlain, f16: storeHalves, q8_0: storeBlocks }[storage](f, head);
  const group = multiply(shiftRight(place.get, constant(4)), constant(keyGroupBytes(head)));
  return f.emit(
    stride.set(strideOf(multiply(kvHeads.get, constant(headDim)))),
    eachRow(
      kernel,
      position.set(ofRow('positions')),
      place.set(and(position.get, constant(PAGE - 1))),
      k.set(add(word('k'), multiply(first.get, stride.get))),
      value.set(add(word('v'), multiply(first.get, stride.get))),
      page.set(pageAddress(word, ofRow('sequences'), shiftRight(position.get, constant(Math.log2(PAGE))))),
      number.set(constant(0)),
      repeat(
        number,
        1,
        kvHeads.get,
        from.set(k.get),
        ...store.key({ from, base: add(page.get, group), place: and(place.get, constant(LINE - 1)) }),
        from.set(value.get),
        ...store.value({ from, base: add(page.get, constant(keyBytes(head))), place: place.get }),
        k.set(add(k.get, constant(headDim * 4))),
        value.set(add(value.get, constant(headDim * 4))),
        page.set(add(page.get, constant(headBytes(head)))),
      ),
    ),
  );
}

interface Store {
  key(places: Places): Statement[];
  value(places: Places): Statement[];
}

function storePlain(f: Func, { headDim }: KvHead): Store {
  const [to, d] = [f.local('i32'), f.local('i32')];
  const values = line(f);
  return {
    key: ({ from, base, place }) => [
      to.set(add(base, shiftLeft(place, constant(2)))),
      d.set(constant(0)),
      repeat(
        d,
        1,
        constant(headDim),
        storeF32(to.get, loadF32(from.get)),
        from.set(add(from.get, constant(4))),
        to.set(add(to.get, constant(lineBytes.f32))),
      ),
    ],
    value: ({ from, base, place }) => [
      to.set(add(base, multiply(place, constant(lineBytes.f32)))),
      ...span(
        f,
        constant(headDim),
        [from],
        [
          ...computeLine(to, values, (c) => v.load(from.get, c * 16)),
          to.set(add(to.get, constant(PAGE * lineBytes.f32))),
        ],
        [storeF32(to.get, loadF32(from.get)), to.set(add(to.get, constant(4)))],
      ),
    ],
  };
}

/** One line at a time. Values behind the head in its row go to padding, or are not written. */
function storeHalves(f: Func, { headDim }: KvHead): Store {
  const [to, d, i, end, at] = [f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32'), f.local('i32')];
  const round = roundToF16(f);
  const [most, least] = [LARGEST_F16, -LARGEST_F16].map((x) => hoistedConstant(f, bitsOf(x)).get);
  const halves = f.array('v128', 2);
  const rounded = (from: I32, c: number) => round(f32.pmax(least!, f32.pmin(most!, v.load(from, c * 16))));
  const eachOf = (from: Local<'i32'>, ...body: Statement[]): Statement[] => [
    d.set(constant(0)),
    repeat(
      d,
      LINE,
      constant(headDim),
      ...halves.map((half, n) => half.set(i16.narrowI32u(rounded(from.get, 2 * n), rounded(from.get, 2 * n + 1)))),
      ...body,
      from.set(add(from.get, constant(LINE * 4))),
    ),
  ];
  const storeTo = (address: I32): Statement[] => halves.map((half, n) => v.store(address, half.get, n * 16));
  return {
    key: ({ from, base, place }) => [
      to.set(add(base, shiftLeft(place, constant(1)))),
      ...eachOf(
        from,
        ...storeTo(f.module.scratch),
        at.set(f.module.scratch),
        i.set(constant(0)),
        end.set(smaller(constant(LINE), subtract(constant(headDim), d.get))),
        repeat(
          i,
          1,
          end.get,
          store16(to.get, load16u(at.get)),
          at.set(add(at.get, constant(2))),
          to.set(add(to.get, constant(lineBytes.f16))),
        ),
      ),
    ],
    value: ({ from, base, place }) => [
      to.set(add(base, multiply(place, constant(lineBytes.f16)))),
      ...eachOf(from, ...storeTo(to.get), to.set(add(to.get, constant(PAGE * lineBytes.f16)))),
    ],
  };
}

function storeBlocks(f: Func, head: KvHead): Store {
  const { headDim } = head;
  const [to, scales, d] = [f.local('i32'), f.local('i32'), f.local('i32')];
  const { compute, codes, largest } = blockCodes(f);
  const lines = f.array('v128', 2);
  const scale = f32Div(largest.get, f32.constant(127));
  /** The codes in ascending order, 16 per vector. */
  const narrowed = lines.map((l, n) => {
    const [a, b, c, e] = codes.slice(4 * n, 4 * n + 4).map(({ get }) => get) as [V128, V128, V128, V128];
    return l.set(i8.narrowI16s(i16.narrowI32s(a, b), i16.narrowI32s(c, e)));
  });
  const eachBlock = (from: Local<'i32'>, scaleStep: number, ...body: Statement[]): Statement[] => [
    d.set(constant(0)),
    repeat(
      d,
      KV_BLOCK,
      constant(headDim),
      ...compute(from),
      storeF32(scales.get, scale),
      ...narrowed,
      ...body,
      from.set(add(from.get, constant(KV_BLOCK * 4))),
      scales.set(add(scales.get, constant(scaleStep))),
    ),
  ];
  const shuffled = Array.from({ length: LINE }, (_, byte) => codeOrder.indexOf(byte));
  const at = f.local('i32');
  return {
    key: ({ from, base, place }) => [
      scales.set(add(base, shiftLeft(place, constant(2)))),
      // codeOrder, computed from the bits of the position.
      to.set(add(add(base, constant(scaleBytes(head))), placeOfCode(place))),
      ...eachBlock(
        from,
        LINE * 4,
        at.set(f.module.scratch),
        ...lines.map((l, n) => v.store(at.get, l.get, 16 * n)),
        ...Array.from({ length: KV_BLOCK }, (_, n) => store8(to.get, load8u(at.get, n), n * lineBytes.q8_0)),
        to.set(add(to.get, constant(KV_BLOCK * lineBytes.q8_0))),
      ),
    ],
    value: ({ from, base, place }) => [
      scales.set(add(base, shiftLeft(place, constant(2)))),
      to.set(add(add(base, constant(valueScaleBytes(head))), multiply(place, constant(lineBytes.q8_0)))),
      ...eachBlock(
        from,
        PAGE * 4,
        ...lines.map((l, n) => v.store(to.get, v.shuffle(l.get, l.get, shuffled), n * PAGE * lineBytes.q8_0)),
        to.set(add(to.get, constant((KV_BLOCK / LINE) * PAGE * lineBytes.q8_0))),
      ),
    ],
  };
}

/** codeOrder of a number from 0 to 15. */
const placeOfCode = (n: I32): I32 =>
  add(
    add(
      shiftLeft(and(shiftRight(n, constant(2)), constant(1)), constant(3)),
      shiftLeft(and(n, constant(3)), constant(1)),
    ),
    shiftRight(n, constant(3)),
  );
