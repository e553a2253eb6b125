/** Macros: binding of arguments, and attributes. */
import { Text } from './text.ts';
import type { MacroBody } from './tree.ts';
import { type CallArguments, Dict, Fault, Thing, Tuple, Undefined, type Value } from './values.ts';
import { spend } from './work.ts';

/** Parameter name -> value, or undefined for the default. */
export type Given = Map<string, Value | undefined>;

export class Macro extends Thing {
  readonly type = 'Macro';
  readonly #macro: MacroBody;
  readonly #run: (given: Given) => Value;

  constructor(macro: MacroBody, run: (given: Given) => Value) {
    super();
    this.#macro = macro;
    this.#run = run;
  }

  override call({ positional, named }: CallArguments): Value {
    spend(40);
    const { name, parameters, uses } = this.#macro;
    const left = new Map(named);
    const given: Given = new Map();
    for (const [i, parameter] of parameters.entries()) {
      if (i < positional.length) given.set(parameter.name, positional[i]);
      else {
        given.set(parameter.name, left.get(parameter.name));
        left.delete(parameter.name);
      }
    }
    if (uses.has('caller')) {
      given.set('caller', left.get('caller') ?? new Undefined('No caller defined'));
      left.delete('caller');
    }
    if (uses.has('kwargs'))
      given.set('kwargs', Dict.of([...left].map(([key, value]) => [new Text(key), value] as const)));
    else if (left.size > 0) throw new Fault(`the macro ${name} takes no argument ${[...left.keys()][0]!.slice(0, 40)}`);
    if (uses.has('varargs')) given.set('varargs', new Tuple(positional.slice(parameters.length)));
    else if (positional.length > parameters.length)
      throw new Fault(`the macro ${name} takes ${parameters.length} arguments, found ${positional.length}`);
    return this.#run(given);
  }

  override attribute(name: string): Value | undefined {
    const { name: own, parameters, uses } = this.#macro;
    switch (name) {
      case 'name':
        return new Text(own);
      case 'arguments':
        return new Tuple(parameters.map((parameter) => new Text(parameter.name)));
      case 'catch_kwargs':
        return uses.has('kwargs');
      case 'catch_varargs':
        return uses.has('varargs');
      case 'caller':
        return uses.has('caller');
      case 'explicit_caller':
        return parameters.some((parameter) => parameter.name === 'caller');
      default:
        return undefined;
    }
  }

  override describe(): Text {
    return new Text(`<Macro '${this.#macro.name}'>`);
  }
}
