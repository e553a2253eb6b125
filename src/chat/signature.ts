/** Binds positional and named arguments to the parameters of built-in functions, with Python's errors. */
import { type CallArguments, Fault, type Value } from './values.ts';

export interface Signature {
  readonly names: readonly string[];
  readonly required: number;
  /** Number of positional-only parameters. */
  readonly placed: number;
  /** Whether further positional (`more`) and named (`moreNamed`) arguments are accepted. */
  readonly more: boolean;
  readonly moreNamed: boolean;
}

/**
 * Parses a signature. `a b? c?`: b and c are optional; `a /`: a is positional-only; `*`, `**`: further positional and named
 * arguments are accepted.
 */
export function signature(text: string): Signature {
  const words = text.split(' ').filter((word) => word !== '');
  const names = words.filter((word) => !['/', '*', '**'].includes(word));
  return {
    names: names.map((name) => name.replace('?', '')),
    required: names.filter((name) => !name.endsWith('?')).length,
    placed: Math.max(0, words.indexOf('/')),
    more: words.includes('*'),
    moreNamed: words.includes('**'),
  };
}

/** Values in the order of the parameters; undefined for an omitted one. @throws Fault */
export function bound(
  name: string,
  { names, required, placed, more, moreNamed }: Signature,
  args: CallArguments,
): (Value | undefined)[] {
  const { positional, named } = args;
  if (positional.length > names.length && !more)
    throw new Fault(`${name} takes at most ${names.length} arguments, found ${positional.length}`);
  const values: (Value | undefined)[] = names.map((_, i) => positional[i]);
  for (const [key, value] of named) {
    const at = names.indexOf(key, placed);
    if (at < 0) {
      if (moreNamed) continue;
      throw new Fault(`${name} takes no argument named ${key.slice(0, 40)}`);
    }
    if (values[at] !== undefined) throw new Fault(`${name} was given ${key} twice`);
    values[at] = value;
  }
  for (let i = 0; i < required; i++)
    if (values[i] === undefined) throw new Fault(`${name} needs an argument ${names[i]}`);
  return values;
}
