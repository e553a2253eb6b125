/** Converts errors for messages between threads; class, code, fields and stack are preserved. */

import * as own from '../errors.ts';
import { ContextLengthError } from '../prompts/limits.ts';

export type ErrorData =
  | {
      /** Name of the nearest class that both sides know. */
      readonly type: string;
      readonly message: string;
      readonly stack: string | undefined;
      /** Own fields: code, file, option ... */
      readonly fields: Readonly<Record<string, unknown>>;
      readonly cause: ErrorData | undefined;
    }
  /** A thrown value that is not an error. */
  | { readonly type: undefined; readonly value: unknown };

type ErrorClass = new (...values: never[]) => Error;

const isErrorClass = (value: unknown): value is ErrorClass =>
  typeof value === 'function' && (value === Error || value.prototype instanceof Error);

const ofJavaScript = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
const candidates: Readonly<Record<string, unknown>> = { ...own, ContextLengthError, ...ofJavaScript };

/** Error classes by their names in the sources. Bundlers shorten names of classes, but not of exports and globals. */
const classes: ReadonlyMap<string, ErrorClass> = new Map(
  Object.entries(candidates).filter((entry): entry is [string, ErrorClass] => isErrorClass(entry[1])),
);
const names: ReadonlyMap<unknown, string> = new Map([...classes].map(([name, type]) => [type, name]));

const MOST_CAUSES = 8;

export function packError(thrown: unknown, causes = MOST_CAUSES): ErrorData {
  if (!(thrown instanceof Error)) return { type: undefined, value: cloneable(thrown) ? thrown : String(thrown) };
  const { message, stack, cause } = thrown;
  const fields = Object.entries(thrown).filter(([key, value]) => !builtIn.has(key) && cloneable(value));
  return {
    type: thrown instanceof DOMException ? 'DOMException' : typeName(thrown),
    message,
    stack,
    fields: Object.fromEntries(thrown instanceof DOMException ? [['name', thrown.name]] : fields),
    cause: cause === undefined || causes === 0 ? undefined : packError(cause, causes - 1),
  };
}

const builtIn: ReadonlySet<string> = new Set(['message', 'stack', 'cause']);

function typeName(error: Error): string {
  for (let type: unknown = Object.getPrototypeOf(error); type !== null; type = Object.getPrototypeOf(type)) {
    const name = names.get((type as Error).constructor);
    if (name !== undefined) return name;
  }
  return 'Error';
}

function cloneable(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return typeof value !== 'function' && typeof value !== 'symbol';
  try {
    structuredClone(value);
    return true;
  } catch {
    return false;
  }
}

export function unpackError(data: ErrorData): unknown {
  if (data.type === undefined) return data.value;
  const { type, message, stack, fields, cause } = data;
  const error =
    type === 'DOMException'
      ? new DOMException(message, String(fields.name))
      : // Constructors of Lanewise's classes have other parameters than a message.
        Object.setPrototypeOf(new Error(message), (classes.get(type) ?? Error).prototype);
  if (type !== 'DOMException') Object.assign(error, fields);
  const hidden = { configurable: true, enumerable: false, writable: true };
  if (stack !== undefined) Object.defineProperty(error, 'stack', { ...hidden, value: stack });
  if (cause !== undefined) Object.defineProperty(error, 'cause', { ...hidden, value: unpackError(cause) });
  return error;
}
