/** Python's numbers: parsing, arithmetic, rounding and formatting of integers of any size and floats. */
import { Text } from './text.ts';
import { Fault, Float, integer, isInteger, numberOf, typeName, Undefined, type Value } from './values.ts';

/** Python's int(text, base). @returns undefined for an invalid text */
export function parseInteger(text: string, base = 10): number | bigint | undefined {
  const found =
    /^\s*([+-]?)(0[xX]_?(?=[\da-fA-F])|0[oO]_?(?=[0-7])|0[bB]_?(?=[01]))?((?:\p{Nd}|[a-zA-Z])(?:_?(?:\p{Nd}|[a-zA-Z]))*)\s*$/u.exec(
      text,
    );
  if (!found || (base !== 0 && (base < 2 || base > 36))) return undefined;
  const [, sign, prefix = '', rest] = found as unknown as [string, string, string | undefined, string];
  const bases: Readonly<Record<string, number>> = { x: 16, o: 8, b: 2 };
  let radix = base;
  let digits = rest.replaceAll('_', '');
  if (prefix) {
    const own = bases[prefix[1]!.toLowerCase()]!;
    // In base 16, the prefix of 0b1 is digits.
    if (base === 0 || base === own) radix = own;
    else digits = prefix.replace('_', '') + digits;
  } else if (base === 0) {
    if (/^0+[^0]/.test(digits)) return undefined;
    radix = 10;
  }
  if (digits.length > 4300) return undefined;
  let value = 0n;
  for (const digit of digits) {
    const number = /[a-zA-Z]/.test(digit) ? Number.parseInt(digit, 36) : decimalOf(digit);
    if (number >= radix) return undefined;
    value = value * BigInt(radix) + BigInt(number);
  }
  return integer(sign === '-' ? -value : value);
}

/** Value of a decimal digit of any script: their code points come in runs of ten. */
function decimalOf(character: string): number {
  const code = character.codePointAt(0)!;
  if (code < 128) return code - 48;
  let zero = code;
  while (code - zero < 9 && /^\p{Nd}$/u.test(String.fromCodePoint(zero - 1))) zero--;
  return code >= 0x1d7ce && code <= 0x1d7ff ? (code - 0x1d7ce) % 10 : code - zero;
}

/** Python's float(text). @returns undefined for an invalid text */
export function parseFloating(text: string): number | undefined {
  const plain = text
    .trim()
    .replace(/\p{Nd}/gu, (digit) => String(decimalOf(digit)))
    .replace(/(?<=\d)_(?=\d)/g, '');
  if (/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(plain)) return Number(plain);
  const word = /^([+-]?)(inf|infinity|nan)$/i.exec(plain);
  if (!word) return undefined;
  return word[2]!.toLowerCase() === 'nan' ? Number.NaN : word[1] === '-' ? -Infinity : Infinity;
}

/** Truncates towards zero. @throws Fault for NaN and infinities */
export function truncated(value: number): number | bigint {
  if (!Number.isFinite(value))
    throw new Fault(`cannot convert float ${Number.isNaN(value) ? 'NaN' : 'infinity'} to integer`);
  const whole = Math.trunc(value);
  return Number.isSafeInteger(whole) ? whole + 0 : integer(BigInt(whole));
}

/** The value of an integer or boolean; undefined for others. */
export const plainInteger = (value: Value): number | bigint | undefined =>
  isInteger(value) ? value : typeof value === 'boolean' ? Number(value) : undefined;

/** An integer or boolean argument as a JavaScript number. @throws Fault */
export function integerOf(value: Value | undefined, what: string, fallback?: number): number {
  if (value === undefined && fallback !== undefined) return fallback;
  const number = value === undefined ? undefined : plainInteger(value);
  if (number !== undefined) return Number(number);
  throw new Fault(`${what} must be an integer, found ${value === undefined ? 'nothing' : typeName(value)}`);
}

const floorDivide = (x: bigint, y: bigint): bigint => {
  const quotient = x / y;
  return x % y !== 0n && x < 0n !== y < 0n ? quotient - 1n : quotient;
};

/** @throws Fault */
export function arithmetic(operator: string, a: Value, b: Value): Value {
  for (const value of [a, b])
    if (value instanceof Undefined)
      throw new Fault(value.what.includes(' ') ? value.what : `${value.what} is undefined`);
  const [i, j] = [plainInteger(a), plainInteger(b)];
  if (i !== undefined && j !== undefined) return ofIntegers(operator, i, j);
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x === undefined || y === undefined)
    throw new Fault(`unsupported operand types for ${operator}: ${typeName(a)} and ${typeName(b)}`);
  for (const value of [x, y])
    if (!Number.isFinite(value) && (typeof a === 'bigint' || typeof b === 'bigint'))
      throw new Fault('int too large to convert to float');
  return new Float(ofFloats(operator, x, y));
}

function ofIntegers(operator: string, i: number | bigint, j: number | bigint): Value {
  if ((operator === '/' || operator === '//' || operator === '%') && Number(j) === 0)
    throw new Fault('division by zero');
  if (typeof i === 'number' && typeof j === 'number') {
    const quick = { '+': i + j, '-': i - j, '*': i * j, '//': Math.floor(i / j), '%': ((i % j) + j) % j }[operator];
    const exact = operator !== '//' || Math.abs(i) < 2 ** 26;
    if (quick !== undefined && exact && Number.isSafeInteger(quick) && Math.abs(j) < 2 ** 52) return quick + 0;
    if (operator === '/') return new Float(i / j);
  }
  const [x, y] = [BigInt(i), BigInt(j)];
  switch (operator) {
    case '+':
      return integer(x + y);
    case '-':
      return integer(x - y);
    case '*':
      return integer(x * y);
    case '//':
      return integer(floorDivide(x, y));
    case '%':
      return integer(x - y * floorDivide(x, y));
    case '/':
      return new Float(ratio(x, y));
    default:
      return power(x, y);
  }
}

function power(x: bigint, y: bigint): Value {
  if (y < 0n) {
    if (x === 0n) throw new Fault('0 cannot be raised to a negative power');
    return new Float(Number(x) ** Number(y));
  }
  const bits = x.toString(2).length - 1;
  if (bits > 0 && BigInt(bits) * y > 100_000n) throw new Fault('expected integers of at most 100000 bits');
  // Powers of 0, 1 and -1 are small for any exponent.
  return integer(bits === 0 ? (y === 0n ? 1n : x >= 0n || y % 2n === 1n ? x : 1n) : x ** y);
}

/** x / y, rounded to the nearest float. */
function ratio(x: bigint, y: bigint): number {
  const negative = x < 0n !== y < 0n;
  const [n, d] = [x < 0n ? -x : x, y < 0n ? -y : y];
  const shift = Math.max(0, 66 - (n.toString(2).length - d.toString(2).length));
  const scaled = n << BigInt(shift);
  // The lowest bit is set if the division has a remainder (sticky bit), so that Number() rounds correctly.
  const value =
    Number(((scaled / d) << 1n) | (scaled % d === 0n ? 0n : 1n)) /
    2 /
    2 ** Math.min(shift, 1000) /
    2 ** Math.max(0, shift - 1000);
  if (!Number.isFinite(value)) throw new Fault('integer division result too large for a float');
  return negative ? -value : value;
}

function ofFloats(operator: string, x: number, y: number): number {
  switch (operator) {
    case '+':
      return x + y;
    case '-':
      return x - y;
    case '*':
      return x * y;
    case '**': {
      if (x === 0 && y < 0) throw new Fault('0.0 cannot be raised to a negative power');
      if (x < 0 && Number.isFinite(x) && Number.isFinite(y) && !Number.isInteger(y))
        throw new Fault('the root of a negative number is not supported');
      if (x === 1 || y === 0) return 1;
      if (x === -1 && !Number.isFinite(y) && !Number.isNaN(y)) return 1;
      const value = x ** y;
      if (!Number.isFinite(value) && Number.isFinite(x) && Number.isFinite(y))
        throw new Fault('Numerical result out of range');
      return value;
    }
  }
  if (y === 0) throw new Fault('float division by zero');
  if (operator === '/') return x / y;
  let rest = x % y;
  if (rest !== 0 && rest < 0 !== y < 0) rest += y;
  if (rest === 0) rest = y < 0 ? -0 : 0;
  if (operator === '%') return rest;
  const quotient = (x - rest) / y;
  const floor = Math.floor(quotient);
  if (quotient === 0) return x / y < 0 ? -0 : 0;
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

/** A float as an exact fraction. */
export function ratioOf(value: number): readonly [bigint, bigint] {
  let [mantissa, exponent] = [value, 0];
  while (!Number.isInteger(mantissa)) {
    mantissa *= 2;
    exponent++;
    if (exponent > 1100) break;
  }
  return [BigInt(mantissa), 1n << BigInt(exponent)];
}

/** n / d rounded to the nearest integer, ties to even. */
function roundedRatio(n: bigint, d: bigint): bigint {
  const floor = floorDivide(n, d);
  const twice = 2n * (n - floor * d);
  return twice > d || (twice === d && floor % 2n !== 0n) ? floor + 1n : floor;
}

/** The absolute value with `places` decimals, correctly rounded, as Python's `%.2f`. */
export function fixed(value: number, places: number): string {
  const [n, d] = ratioOf(Math.abs(value));
  const digits = roundedRatio(n * 10n ** BigInt(places), d)
    .toString()
    .padStart(places + 1, '0');
  return places === 0 ? digits : `${digits.slice(0, -places)}.${digits.slice(-places)}`;
}

/** The absolute value as `d.ddd` with `places` decimals and a power of ten, correctly rounded. */
export function scientific(value: number, places: number): readonly [digits: string, exponent: number] {
  const magnitude = Math.abs(value);
  if (magnitude === 0) return [places === 0 ? '0' : `0.${'0'.repeat(places)}`, 0];
  let exponent = Number(magnitude.toExponential().split('e')[1]);
  const [n, d] = ratioOf(magnitude);
  const at = (power: number): bigint => {
    const shift = BigInt(Math.abs(places - power));
    return places >= power ? roundedRatio(n * 10n ** shift, d) : roundedRatio(n, d * 10n ** shift);
  };
  let digits = at(exponent).toString();
  if (digits.length > places + 1) digits = at(++exponent).toString();
  return [places === 0 ? digits : `${digits[0]}.${digits.slice(1)}`, exponent];
}

/** Python's round(). @throws Fault */
export function round(value: Value, places: number): Value {
  const whole = plainInteger(value);
  if (whole !== undefined) {
    if (places >= 0) return whole;
    if (places < -4300) return 0;
    const unit = 10n ** BigInt(-places);
    return integer(roundedRatio(BigInt(whole), unit) * unit);
  }
  if (!(value instanceof Float)) throw new Fault(`type ${typeName(value)} cannot be rounded`);
  const number = value.value;
  if (!Number.isFinite(number) || places > 323) return value;
  if (places < -308) return new Float(number < 0 ? -0 : 0);
  const [n, d] = ratioOf(Math.abs(number));
  const scale = 10n ** BigInt(Math.abs(places));
  const digits = places >= 0 ? roundedRatio(n * scale, d) : roundedRatio(n, d * scale);
  return new Float(Number(`${number < 0 || Object.is(number, -0) ? '-' : ''}${digits}e${-places}`));
}

/** Python's int() of a value. @returns undefined if Python raises TypeError or ValueError */
export function toInteger(value: Value, base = 10): number | bigint | undefined {
  if (value instanceof Text) return parseInteger(value.value, base);
  if (value instanceof Float) return Number.isNaN(value.value) ? undefined : truncated(value.value);
  return plainInteger(value);
}

/** Python's float() of a value. @returns undefined if Python raises */
export function toFloat(value: Value): number | undefined {
  return value instanceof Text ? parseFloating(value.value) : numberOf(value);
}
