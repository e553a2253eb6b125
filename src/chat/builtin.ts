/** Types of filters and tests. */
import { Text } from './text.ts';
import { type CallArguments, Fault, typeName, type Value } from './values.ts';

/** Lets filters such as `map` and `select` apply other filters and tests by name. */
export interface Context {
  filter(name: string, operand: Value, args: CallArguments): Value;
  test(name: string, operand: Value, args: CallArguments): boolean;
  knows(kind: 'filter' | 'test', name: string): boolean;
}

type Arguments = readonly (Value | undefined)[];
export type Filter = (operand: Value, args: Arguments, context: Context, all: CallArguments) => Value;
export type Test = (operand: Value, args: Arguments, context: Context) => boolean;
/** Name -> parameters (src/chat/signature.ts) and function. */
export type Table<T> = Readonly<Record<string, readonly [signature: string, run: T]>>;

/** An argument that must be a text. @param what names it in the error @throws Fault */
export function textIn(value: Value | undefined, what: string): Text {
  if (value instanceof Text) return value;
  throw new Fault(`${what} must be a text, found ${value === undefined ? 'nothing' : typeName(value)}`);
}
