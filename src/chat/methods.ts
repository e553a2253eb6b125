/** Python's methods by type of value. Methods that change a list or dict are left out, as in Jinja's sandbox. */
import { Bytes, decoded } from './bytes.ts';
import { integerOf, plainInteger, ratioOf } from './numbers.ts';
import { bound, signature } from './signature.ts';
import { indexOf } from './slices.ts';
import { Text } from './text.ts';
import { textMethod, textMethods } from './text-methods.ts';
import {
  type CallArguments,
  Dict,
  equals,
  Fault,
  Float,
  Func,
  integer,
  isInteger,
  List,
  listOf,
  Range,
  Tuple,
  type Value,
  View,
  valueOr,
} from './values.ts';
import { spendItems } from './work.ts';

type Run<T> = (self: T, args: readonly (Value | undefined)[], all: CallArguments) => Value;
type Methods<T> = Readonly<Record<string, readonly [signature: string, run: Run<T>]>>;

const counted = (items: readonly Value[], item: Value): number => {
  spendItems(items.length);
  return items.filter((other) => equals(other, item)).length;
};

const sequenceMethods: Methods<List | Tuple> = {
  count: ['value /', ({ items }, [item]) => counted(items, item!)],
  index: [
    'value start? stop? /',
    ({ items }, [item, start, stop]) =>
      indexOf(items, item!, integerOf(start, 'start', 0), integerOf(stop, 'stop', items.length)),
  ],
};

const listMethods: Methods<List> = {
  ...(sequenceMethods as Methods<List>),
  copy: ['', (list) => list],
};

const dictMethods: Methods<Dict> = {
  copy: ['', (dict) => dict],
  fromkeys: ['iterable value? /', (_, [keys, value]) => fromKeys(keys!, value ?? null)],
  get: ['key default? /', (dict, [key, fallback]) => valueOr(dict.get(key!), fallback ?? null)],
  items: ['', (dict) => new View('dict_items', dict)],
  keys: ['', (dict) => new View('dict_keys', dict)],
  values: ['', (dict) => new View('dict_values', dict)],
};

/** Python's dict.fromkeys. @throws Fault */
export const fromKeys = (keys: Value, value: Value): Dict => Dict.of(listOf(keys).map((key) => [key, value] as const));

function toBytes(value: Value, [length, order, signed]: readonly (Value | undefined)[]): Bytes {
  const size = integerOf(length, 'length', 1);
  if (size < 0 || size > 100_000) throw new Fault('length must be from 0 to 100000');
  const whole = BigInt(plainInteger(value)!);
  const isSigned = signed === true;
  const half = 1n << BigInt(Math.max(0, size * 8 - 1));
  if (
    (whole < 0n && !isSigned) ||
    (isSigned ? whole >= half || whole < -half : whole >= half * 2n) ||
    (size === 0 && whole !== 0n)
  )
    throw new Fault('int too big to convert');
  const data = new Uint8Array(size);
  let rest = whole < 0n ? whole + (1n << BigInt(size * 8)) : whole;
  for (let i = size - 1; i >= 0; i--) {
    data[i] = Number(rest & 255n);
    rest >>= 8n;
  }
  const name = order === undefined ? 'big' : order instanceof Text ? order.value : '';
  if (name !== 'big' && name !== 'little') throw new Fault("byteorder must be either 'little' or 'big'");
  return new Bytes(name === 'big' ? data : data.reverse(), true);
}

function fromBytes([data, order, signed]: readonly (Value | undefined)[]): Value {
  const bytes = data instanceof Bytes ? [...data.data] : listOf(data!).map((byte) => integerOf(byte, 'a byte'));
  if (order instanceof Text && order.value === 'little') bytes.reverse();
  const value = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const isNegative = signed === true && bytes.length > 0 && bytes[0]! > 127;
  return integer(isNegative ? value - (1n << BigInt(bytes.length * 8)) : value);
}

const magnitude = (value: Value): string => {
  const whole = BigInt(plainInteger(value)!);
  return (whole < 0n ? -whole : whole).toString(2);
};

const intMethods: Methods<Value> = {
  as_integer_ratio: ['', (value) => new Tuple([plainInteger(value)!, 1])],
  bit_count: ['', (value) => magnitude(value).replaceAll('0', '').length],
  bit_length: ['', (value) => (magnitude(value) === '0' ? 0 : magnitude(value).length)],
  conjugate: ['', (value) => plainInteger(value)!],
  from_bytes: ['bytes byteorder? signed?', (_, args) => fromBytes(args)],
  to_bytes: ['length? byteorder? signed?', toBytes],
};

function floatHex(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  if (value === 0) return `${sign}0x0.0p+0`;
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, Math.abs(value));
  const bits = view.getBigUint64(0);
  const biased = Number(bits >> 52n);
  const exponent = biased === 0 ? -1022 : biased - 1023;
  const digits = (bits & 0xfffffffffffffn).toString(16).padStart(13, '0');
  return `${sign}0x${biased === 0 ? 0 : 1}.${digits}p${exponent < 0 ? '-' : '+'}${Math.abs(exponent)}`;
}

function fromHex(text: Value): Float {
  const found =
    text instanceof Text
      ? /^\s*([-+]?)(?:0[xX])?([\da-fA-F]*)\.?([\da-fA-F]*)(?:[pP]([-+]?\d+))?\s*$/.exec(text.value)
      : undefined;
  if (!found || found[2]!.length + found[3]!.length === 0) throw new Fault('invalid hexadecimal floating-point text');
  const mantissa = Number(`0x${found[2]}${found[3]}`);
  const value = mantissa * 2 ** (Number(found[4] ?? 0) - 4 * found[3]!.length);
  return new Float(found[1] === '-' ? -value : value);
}

const floatMethods: Methods<Float> = {
  as_integer_ratio: [
    '',
    ({ value }) => {
      if (!Number.isFinite(value)) throw new Fault('cannot convert Infinity or NaN to integer ratio');
      const [n, d] = ratioOf(value);
      return new Tuple([integer(n), integer(d)]);
    },
  ],
  conjugate: ['', (value) => value],
  fromhex: ['string /', (_, [text]) => fromHex(text!)],
  hex: ['', ({ value }) => new Text(floatHex(value))],
  is_integer: ['', ({ value }) => Number.isInteger(value)],
};

const rangeMethods: Methods<Range> = {
  count: ['value /', (range, [item]) => counted(listOf(range), item!)],
  index: ['value /', (range, [item]) => indexOf(listOf(range), item!)],
};

const viewMethods: Methods<View> = {
  isdisjoint: [
    'other /',
    (view, [other]) => {
      const items = listOf(view);
      return !listOf(other!).some((item) => counted(items, item) > 0);
    },
  ],
};

const bytesMethods: Methods<Bytes> = {
  decode: ['encoding? errors?', (bytes, [encoding, errors]) => decoded(bytes, encoding, errors)],
  hex: ['', (bytes) => bytes.text([...bytes.data].map((byte) => byte.toString(16).padStart(2, '0')).join(''))],
};

/** Methods of each type, for the table in docs/chat.md. */
export const methodsByType: Readonly<
  Record<string, Readonly<Record<string, readonly [signature: string, ...rest: unknown[]]>>>
> = {
  str: textMethods,
  list: listMethods,
  tuple: sequenceMethods,
  dict: dictMethods,
  int: intMethods,
  float: floatMethods,
  range: rangeMethods,
  bytes: bytesMethods,
};

/** The method of that name, bound to the value; undefined if there is none. */
export function methodOf(value: Value, name: string): Func | undefined {
  if (value instanceof Text) return textMethod(value, name);
  if (value instanceof Dict) return bind(dictMethods, name, value);
  if (value instanceof List) return bind(listMethods, name, value);
  if (value instanceof Tuple) return bind(sequenceMethods, name, value);
  if (isInteger(value) || typeof value === 'boolean') return bind(intMethods, name, value);
  if (value instanceof Float) return bind(floatMethods, name, value);
  if (value instanceof Range) return bind(rangeMethods, name, value);
  if (value instanceof View) return value.type === 'dict_values' ? undefined : bind(viewMethods, name, value);
  if (value instanceof Bytes) return bind(bytesMethods, name, value);
  return undefined;
}

function bind<T>(methods: Methods<T>, name: string, self: T): Func | undefined {
  if (!Object.hasOwn(methods, name)) return undefined;
  const [parameters, run] = methods[name]!;
  return new Func(name, (args) => run(self, bound(name, signature(parameters), args), args));
}
