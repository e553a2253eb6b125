/** The variable `loop` in the body of a loop. */

import { Text } from './text.ts';
import {
  type CallArguments,
  equals,
  Fault,
  Func,
  Generator,
  iterate,
  lengthOf,
  Thing,
  Tuple,
  Undefined,
  type Value,
  valueOr,
} from './values.ts';
import { spend, spendItems } from './work.ts';

/** Takes items from the iterator one by one, so that a generator is read only as far as the body needs. */
export class Loop extends Thing {
  readonly type = 'LoopContext';
  readonly #items: Value;
  readonly #values: Iterator<Value>;
  readonly #recurse: ((items: Value, depth: number) => Value) | undefined;
  readonly #depth0: number;
  /** Items read ahead, for `loop.last`, `loop.nextitem` and `loop.length`. */
  readonly #ahead: Value[] = [];
  #index = -1;
  #length: number | undefined;
  #before: Value | undefined;
  #current: Value | undefined;
  #changed: Value | undefined;

  constructor(
    items: Value,
    values: Iterator<Value> = iterate(items),
    depth0 = 0,
    recurse?: (items: Value, depth: number) => Value,
  ) {
    super();
    this.#items = items;
    this.#values = values;
    this.#depth0 = depth0;
    this.#recurse = recurse;
  }

  #pull(): boolean {
    const { done, value } = this.#values.next();
    if (done) return false;
    spend(1);
    this.#ahead.push(value);
    return true;
  }

  /** @returns the next item, undefined after the last */
  advance(): Value | undefined {
    if (this.#ahead.length === 0 && !this.#pull()) return undefined;
    this.#index++;
    this.#before = this.#current;
    // Usually one item is ahead; `pop` is faster than `shift`.
    this.#current = this.#ahead.length === 1 ? this.#ahead.pop() : this.#ahead.shift();
    return this.#current;
  }

  #peek(): Value | undefined {
    return this.#ahead.length > 0 || this.#pull() ? this.#ahead[0] : undefined;
  }

  override size(): number {
    if (this.#length === undefined) {
      if (this.#items instanceof Generator || (this.#items instanceof Thing && !this.#items.size)) {
        while (this.#pull());
        spendItems(this.#ahead.length);
        this.#length = this.#index + 1 + this.#ahead.length;
      } else this.#length = lengthOf(this.#items);
    }
    return this.#length;
  }

  override attribute(name: string): Value | undefined {
    switch (name) {
      case 'index':
        return this.#index + 1;
      case 'index0':
        return this.#index;
      case 'revindex':
        return this.size() - this.#index;
      case 'revindex0':
        return this.size() - this.#index - 1;
      case 'first':
        return this.#index === 0;
      case 'last':
        return this.#peek() === undefined;
      case 'length':
        return this.size();
      case 'depth':
        return this.#depth0 + 1;
      case 'depth0':
        return this.#depth0;
      case 'previtem':
        return valueOr(this.#before, new Undefined('there is no previous item'));
      case 'nextitem':
        return valueOr(this.#peek(), new Undefined('there is no next item'));
      case 'cycle':
        return new Func(name, ({ positional }) => {
          if (positional.length === 0) throw new Fault('no items for cycling given');
          return positional[this.#index % positional.length]!;
        });
      case 'changed':
        return new Func(name, ({ positional }) => {
          const value = new Tuple(positional);
          const same = this.#changed !== undefined && equals(this.#changed, value);
          this.#changed = value;
          return !same;
        });
      default:
        return undefined;
    }
  }

  override call({ positional, named }: CallArguments): Value {
    if (!this.#recurse) throw new Fault("The loop must have the 'recursive' marker to be called recursively.");
    if (positional.length !== 1 || named.size > 0) throw new Fault('a recursive loop takes one argument');
    return this.#recurse(positional[0]!, this.#depth0 + 1);
  }

  override describe(): Text {
    return new Text(`<LoopContext ${this.#index + 1}/${this.size()}>`);
  }
}
