/** The registry of filters and tests. */
import type { Context, Filter, Table } from './builtin.ts';
import { itemFilters } from './filters-items.ts';
import { textFilters } from './filters-text.ts';
import { bound, type Signature, signature } from './signature.ts';
import { tests } from './tests.ts';
import { Text } from './text.ts';
import { type CallArguments, Fault, type Value } from './values.ts';
import { spend } from './work.ts';

export const filters: Table<Filter> = { ...itemFilters, ...textFilters };
export { tests };

/** Filters that return their operand unread, so that its length costs no steps. */
const passThrough: ReadonlySet<string> = new Set(['d', 'default', 'safe', 'string']);

const signatures = new Map<string, Signature>();

function parameters(text: string): Signature {
  let known = signatures.get(text);
  if (!known) signatures.set(text, (known = signature(text)));
  return known;
}

/** @throws Fault for an unknown name, and as the filter throws */
export function applyFilter(name: string, operand: Value, args: CallArguments): Value {
  spend(2);
  if (operand instanceof Text && Object.hasOwn(textFilters, name) && !passThrough.has(name)) spend(operand.weight * 2);
  if (!Object.hasOwn(filters, name)) throw new Fault(`no filter named ${JSON.stringify(name.slice(0, 40))}`);
  const [text, run] = filters[name]!;
  return run(operand, bound(`the filter ${name}`, parameters(text), args), context, args);
}

/** @throws Fault for an unknown name, and as the test throws */
export function applyTest(name: string, operand: Value, args: CallArguments): boolean {
  spend(2);
  if (!Object.hasOwn(tests, name)) throw new Fault(`no test named ${JSON.stringify(name.slice(0, 40))}`);
  const [text, run] = tests[name]!;
  return run(operand, bound(`the test ${name}`, parameters(text), args), context);
}

const context: Context = {
  filter: applyFilter,
  test: applyTest,
  knows: (kind, name) => Object.hasOwn(kind === 'filter' ? filters : tests, name),
};
