/** Attributes (`a.b`), items (`a[b]`) and calls. */
import { Bytes } from './bytes.ts';
import { formatBraces } from './format.ts';
import { methodOf } from './methods.ts';
import { plainInteger } from './numbers.ts';
import { represent } from './represent.ts';
import { bound, signature } from './signature.ts';
import { alike } from './slices.ts';
import { Text } from './text.ts';
import {
  type CallArguments,
  Dict,
  Fault,
  Float,
  Func,
  isInteger,
  List,
  missing,
  Range,
  Thing,
  Tuple,
  typeName,
  Undefined,
  type Value,
  valueOr,
} from './values.ts';
import { spend } from './work.ts';

const oneMapping = signature('mapping /');

/** Methods of texts that read attributes and items of their arguments. */
export const formatMethods: Readonly<Record<string, string>> = { format: '* **', format_map: 'mapping /' };

function formatMethod(text: Text, name: string): Func | undefined {
  if (!Object.hasOwn(formatMethods, name)) return undefined;
  const lookup = { attribute: getAttribute, item: getItem };
  return new Func(name, (args) => {
    if (name === 'format') return formatBraces(text, args, lookup);
    const [mapping] = bound(name, oneMapping, args);
    if (!(mapping instanceof Dict)) throw new Fault(`format_map needs a mapping, found ${typeName(mapping!)}`);
    const entries = [...mapping.entries.values()].flatMap(([key, value]) =>
      key instanceof Text ? [[key.value, value] as const] : [],
    );
    return formatBraces(text, { positional: [], named: new Map(entries) }, lookup);
  });
}

/** An attribute of a value: a method, or one of a few plain attributes. */
export function attributeOf(object: Value, name: string): Value | undefined {
  if (name.startsWith('_')) return undefined;
  if (object instanceof Text) return formatMethod(object, name) ?? methodOf(object, name);
  if (isInteger(object) || typeof object === 'boolean' || object instanceof Float) {
    if (name === 'real') return typeof object === 'boolean' ? Number(object) : object;
    if (name === 'imag') return object instanceof Float ? new Float(0) : 0;
    if (name === 'numerator' && !(object instanceof Float))
      return typeof object === 'boolean' ? Number(object) : object;
    if (name === 'denominator' && !(object instanceof Float)) return 1;
  }
  if (object instanceof Tuple && object.names.includes(name)) return object.items[object.names.indexOf(name)];
  const method = methodOf(object, name);
  if (method !== undefined) return method;
  return object instanceof Thing ? object.attribute(name) : undefined;
}

/** `object[key]`: items first, then attributes. @throws Fault */
export function getItem(object: Value, key: Value): Value {
  if (object instanceof Undefined) throw missing(object);
  const item = itemOf(object, key);
  if (item !== undefined) return item;
  if (key instanceof Text) return valueOr(attributeOf(object, key.value), new Undefined(lacks(object, key)));
  return new Undefined(lacks(object, key));
}

/** `object.name`: attributes first, then items. @throws Fault */
export function getAttribute(object: Value, name: string): Value {
  if (object instanceof Undefined) {
    if (name === '__class__') return new Undefined(`access to attribute '${name}' is unsafe`);
    throw missing(object);
  }
  const attribute = attributeOf(object, name);
  if (attribute !== undefined) return attribute;
  const item = object instanceof Dict ? object.named(name) : undefined;
  return item === undefined ? new Undefined(lacks(object, new Text(name))) : item;
}

const lacks = (object: Value, key: Value): string =>
  key instanceof Text
    ? `'${typeName(object)} object' has no attribute '${key.value.slice(0, 100)}'`
    : `${typeName(object)} object has no element ${represent(key).value.slice(0, 100)}`;

function itemOf(object: Value, key: Value): Value | undefined {
  if (object instanceof Dict) {
    if (key instanceof List || key instanceof Dict) return undefined;
    return object.get(key);
  }
  const index = plainInteger(key);
  if (index === undefined || typeof index === 'bigint') return undefined;
  if (object instanceof Text) {
    const length = object.characters;
    if (length !== object.length) spend(object.length / 8);
    const at = index < 0 ? index + length : index;
    return at < 0 || at >= length ? undefined : alike(object, object.sliceCharacters(at, at + 1));
  }
  if (object instanceof List || object instanceof Tuple) return object.items.at(index);
  if (object instanceof Bytes) return object.data.at(index);
  if (object instanceof Range) {
    const at = index < 0 ? index + object.length : index;
    return at < 0 || at >= object.length ? undefined : object.at(at);
  }
  return undefined;
}

/** @throws Fault */
export function call(callee: Value, args: CallArguments): Value {
  if (callee instanceof Undefined) throw missing(callee);
  if (!(callee instanceof Thing && callee.call)) throw new Fault(`'${typeName(callee)}' object is not callable`);
  return callee.call(args);
}
