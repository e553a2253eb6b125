/**
 * Runs a template's tree over plain data, within limits: steps, output and nesting. Written here because text must keep
 * its origin through every function of a template (src/chat/text.ts), and because each step has to be counted.
 */
import { TemplateError } from '../errors.ts';
import { type Context, findFilter, findTest } from './filters.ts';
import { MAX_DEPTH, templateError } from './lexer.ts';
import { integerOf, methodOf, textOf } from './methods.ts';
import { arithmetic, compares, slice } from './operators.ts';
import { Text } from './text.ts';
import type { Arguments, Expression, Parameter, Statement, Target, Use } from './tree.ts';
import {
  type CallArguments,
  type Callable,
  Dict,
  equals,
  Fault,
  Float,
  isTrue,
  itemsOf,
  Namespace,
  numberOf,
  sizeOf,
  toText,
  typeName,
  Undefined,
  type Value,
  valueOr,
} from './values.ts';

export interface Limits {
  /** Statements, expressions and items looked at. */
  readonly steps: number;
  /** Characters of any text made on the way, and of the result. */
  readonly characters: number;
}

/** What `raise_exception` throws: the template's own words. */
export class Raised extends Error {}

class Scope {
  readonly #names = new Map<string, Value>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  get(name: string): Value | undefined {
    return this.#names.has(name) ? this.#names.get(name) : this.#outer?.get(name);
  }

  set(name: string, value: Value): void {
    this.#names.set(name, value);
  }
}

type Signal = 'break' | 'continue' | undefined;
const CHARACTERS_PER_STEP = 32;
const ITEMS_PER_STEP = 2;
/** Filters that compare items, and so go through all of them. */
const comparing: readonly string[] = ['unique', 'sort', 'dictsort', 'min', 'max'];
/** Tests that go through a text. */
const spelling: readonly string[] = ['upper', 'lower'];

/** Renders. @param globals names that the template sees @throws TemplateError with line and column */
export function interpret(
  template: string,
  program: readonly Statement[],
  globals: ReadonlyMap<string, Value>,
  limits: Limits,
): Text {
  const interpreter = new Interpreter(limits);
  const scope = new Scope();
  for (const [name, value] of globals) scope.set(name, value);
  try {
    const out: Text[] = [];
    interpreter.run(program, scope, out);
    return interpreter.joined(out);
  } catch (error) {
    if (error instanceof Raised) throw new TemplateError('Raised', error.message);
    if (error instanceof Fault) throw templateError(template, interpreter.at, error.message);
    if (error instanceof RangeError) throw templateError(template, interpreter.at, 'expected less nesting');
    throw error;
  }
}

class Interpreter implements Context {
  /** Offset of what is being evaluated. */
  at = 0;
  readonly #limits: Limits;
  #steps = 0;
  #written = 0;
  #depth = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  spend(steps: number): void {
    this.#steps += steps;
    if (this.#steps > this.#limits.steps)
      throw new Fault(`expected at most ${this.#limits.steps} steps: an endless template?`);
  }

  /** Accounts for work that looks at all of a value. */
  #weigh(value: Value): void {
    if (value instanceof Text) this.spend(value.length / CHARACTERS_PER_STEP + value.spans.length / ITEMS_PER_STEP);
    else if (Array.isArray(value)) this.spend(value.length / ITEMS_PER_STEP);
    else if (value instanceof Dict) this.spend(value.entries.size / ITEMS_PER_STEP);
  }

  /** Accounts for work that looks at all parts of values. */
  #weighAll(...values: readonly Value[]): void {
    this.spend(values.reduce<number>((sum, value) => sum + sizeOf(value), 0) / ITEMS_PER_STEP);
  }

  /** Accounts for a text that was made. */
  #made(text: Text): Text {
    this.#weigh(text);
    this.#checkLength(text.length);
    return text;
  }

  #checkLength(length: number): void {
    if (length > this.#limits.characters)
      throw new Fault(`expected texts of at most ${this.#limits.characters} characters`);
  }

  joined(out: readonly Text[]): Text {
    this.#checkLength(out.reduce((sum, text) => sum + text.length, 0));
    return this.#made(Text.join(out));
  }

  #nested<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH) throw new Fault(`expected at most ${MAX_DEPTH} levels of nesting`);
    try {
      return work();
    } finally {
      this.#depth--;
    }
  }

  run(body: readonly Statement[], scope: Scope, out: Text[]): Signal {
    for (const statement of body) {
      this.spend(1);
      this.at = statement.at;
      const signal = this.#statement(statement, scope, out);
      if (signal) return signal;
    }
    return undefined;
  }

  #write(text: Text, out: Text[]): void {
    this.#written += text.length;
    this.#checkLength(this.#written);
    if (text.length > 0) out.push(text);
  }

  /** What a body writes. */
  #captured(body: readonly Statement[], scope: Scope): Text {
    return this.#nested(() => {
      const out: Text[] = [];
      const before = this.#written;
      this.run(body, scope, out);
      this.#written = before;
      return this.joined(out);
    });
  }

  #statement(statement: Statement, scope: Scope, out: Text[]): Signal {
    switch (statement.kind) {
      case 'text':
        this.#write(new Text(statement.value), out);
        return undefined;
      case 'output':
        this.#write(toText(this.#evaluate(statement.value, scope)), out);
        return undefined;
      case 'set':
        this.#assign(statement.target, this.#evaluate(statement.value, scope), scope);
        return undefined;
      case 'set-block': {
        const text = this.#captured(statement.body, new Scope(scope));
        this.#assign(statement.target, this.#filtered(text, statement.filters, scope), scope);
        return undefined;
      }
      case 'filter-block': {
        const text = this.#captured(statement.body, new Scope(scope));
        this.#write(toText(this.#filtered(text, statement.filters, scope)), out);
        return undefined;
      }
      case 'if': {
        const branch = statement.branches.find(({ test }) => isTrue(this.#evaluate(test, scope)));
        return this.#nested(() => this.run(branch ? branch.body : statement.otherwise, scope, out));
      }
      case 'for':
        return this.#nested(() => this.#loop(statement, scope, out));
      case 'macro':
        scope.set(statement.name, this.#macro(statement, scope));
        return undefined;
      case 'call-block': {
        const { call } = statement;
        const caller = this.#macro({ ...statement, name: 'caller' }, scope);
        if (call.kind !== 'call') throw new Fault('expected a call of a macro');
        const args = this.#arguments(call.args, scope);
        const value = this.#call(this.#evaluate(call.callee, scope), {
          ...args,
          named: new Map([...args.named, ['caller', caller]]),
        });
        this.#write(toText(value), out);
        return undefined;
      }
      case 'block':
        return this.run(statement.body, scope, out);
      default:
        return statement.kind;
    }
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if ('object' in target) {
      const object = scope.get(target.object);
      if (!(object instanceof Namespace))
        throw new Fault(`${target.object} is no namespace: its attributes cannot be set`);
      object.set(new Text(target.attribute), value);
    } else if (target.single) scope.set(target.names[0]!, value);
    else {
      const items = itemsOf(value);
      if (items.length !== target.names.length)
        throw new Fault(`expected ${target.names.length} values, found ${items.length}`);
      for (const [i, name] of target.names.entries()) scope.set(name, items[i]!);
    }
  }

  #loop(statement: Extract<Statement, { kind: 'for' }>, scope: Scope, out: Text[]): Signal {
    const { target, test, body, otherwise } = statement;
    let items = itemsOf(this.#evaluate(statement.items, scope));
    this.spend(items.length);
    if (test) {
      items = items.filter((item) => {
        const inner = new Scope(scope);
        this.#assign(target, item, inner);
        return isTrue(this.#evaluate(test, inner));
      });
    }
    if (items.length === 0) return this.run(otherwise, scope, out);
    let changed: Value | undefined;
    for (const [index, item] of items.entries()) {
      const inner = new Scope(scope);
      const loop = new Dict();
      const entries: Readonly<Record<string, Value>> = {
        index: index + 1,
        index0: index,
        revindex: items.length - index,
        revindex0: items.length - index - 1,
        first: index === 0,
        last: index === items.length - 1,
        length: items.length,
        previtem: valueOr(items[index - 1], new Undefined('the item before the first')),
        nextitem: valueOr(items[index + 1], new Undefined('the item after the last')),
        cycle: ({ positional }) => positional[index % Math.max(positional.length, 1)] ?? null,
        changed: ({ positional }) => {
          this.#weighAll(positional);
          const same = changed !== undefined && equals(changed, positional);
          changed = positional;
          return !same;
        },
      };
      for (const [name, value] of Object.entries(entries)) loop.set(new Text(name), value);
      inner.set('loop', loop);
      this.#assign(target, item, inner);
      this.spend(1);
      if (this.run(body, inner, out) === 'break') break;
    }
    return undefined;
  }

  #macro(
    { name, parameters, body }: { name: string; parameters: readonly Parameter[]; body: readonly Statement[] },
    scope: Scope,
  ): Callable {
    return ({ positional, named }) => {
      const inner = new Scope(scope);
      for (const [i, parameter] of parameters.entries()) {
        const given = i < positional.length ? positional[i] : named.get(parameter.name);
        inner.set(
          parameter.name,
          given !== undefined
            ? given
            : parameter.fallback
              ? this.#evaluate(parameter.fallback, inner)
              : new Undefined(parameter.name),
        );
      }
      const known = parameters.map((parameter) => parameter.name);
      const unknown = [...named.keys()].filter((key) => !known.includes(key) && key !== 'caller');
      if (unknown.length > 0) throw new Fault(`the macro ${name} takes no argument ${unknown[0]}`);
      if (positional.length > parameters.length)
        throw new Fault(`the macro ${name} takes ${parameters.length} arguments, found ${positional.length}`);
      const caller = named.get('caller');
      if (caller !== undefined) inner.set('caller', caller);
      return this.#captured(body, inner);
    };
  }

  #evaluate(expression: Expression, scope: Scope): Value {
    this.spend(1);
    this.at = expression.at;
    const value = this.#valueOf(expression, scope);
    const most = this.#limits.steps * ITEMS_PER_STEP;
    if (sizeOf(value) > most) throw new Fault(`expected values of at most ${most} parts`);
    return value;
  }

  #valueOf(expression: Expression, scope: Scope): Value {
    switch (expression.kind) {
      case 'constant':
        return typeof expression.value === 'string' ? new Text(expression.value) : expression.value;
      case 'float':
        return new Float(expression.value);
      case 'name':
        return valueOr(scope.get(expression.name), new Undefined(expression.name));
      case 'list':
        return expression.items.map((item) => this.#evaluate(item, scope));
      case 'dict': {
        const dict = new Dict();
        for (const [key, value] of expression.entries)
          dict.set(textOf(this.#evaluate(key, scope), 'a key'), this.#evaluate(value, scope));
        return dict;
      }
      case 'attribute': {
        const object = this.#evaluate(expression.object, scope);
        this.at = expression.at;
        if (!(object instanceof Dict)) this.#weighAll(object);
        return this.#method(object, expression.name) ?? this.item(object, new Text(expression.name));
      }
      case 'item': {
        const object = this.#evaluate(expression.object, scope);
        const key = this.#evaluate(expression.key, scope);
        this.at = expression.at;
        return this.item(object, key);
      }
      case 'slice': {
        const object = this.#evaluate(expression.object, scope);
        const bounds = expression.bounds.map((bound) => (bound ? this.#evaluate(bound, scope) : undefined));
        this.at = expression.at;
        this.#weigh(object);
        // Steps take a text apart.
        if (object instanceof Text && bounds[2] !== undefined) this.spend(object.length / ITEMS_PER_STEP);
        return slice(object, bounds);
      }
      case 'call': {
        const callee = this.#evaluate(expression.callee, scope);
        const args = this.#arguments(expression.args, scope);
        this.at = expression.at;
        return this.#call(callee, args);
      }
      case 'filter':
        return this.#filtered(this.#evaluate(expression.operand, scope), [expression.use], scope);
      case 'test': {
        const operand = this.#evaluate(expression.operand, scope);
        const args = this.#arguments(expression.use.args, scope);
        this.at = expression.use.at;
        return this.test(expression.use.name, operand, args) !== expression.negated;
      }
      case 'unary': {
        const value = this.#evaluate(expression.operand, scope);
        if (expression.operator === 'not') return !isTrue(value);
        const sign = expression.operator === '-' ? -1 : 1;
        if (value instanceof Float) return new Float(sign * value.value);
        return sign * integerOf(value, `the operand of ${expression.operator}`);
      }
      case 'binary':
        return this.#binary(expression, scope);
      case 'compare': {
        let left = this.#evaluate(expression.first, scope);
        for (const { operator, operand } of expression.rest) {
          const right = this.#evaluate(operand, scope);
          this.at = expression.at;
          this.#weighAll(left, right);
          if (!compares(operator, left, right)) return false;
          left = right;
        }
        return true;
      }
      case 'choice': {
        if (isTrue(this.#evaluate(expression.test, scope))) return this.#evaluate(expression.whenTrue, scope);
        return expression.otherwise ? this.#evaluate(expression.otherwise, scope) : new Undefined('the other case');
      }
    }
  }

  #binary({ operator, left, right, at }: Extract<Expression, { kind: 'binary' }>, scope: Scope): Value {
    const a = this.#evaluate(left, scope);
    if (operator === 'and') return isTrue(a) ? this.#evaluate(right, scope) : a;
    if (operator === 'or') return isTrue(a) ? a : this.#evaluate(right, scope);
    const b = this.#evaluate(right, scope);
    this.at = at;
    for (const value of [a, b]) if (value instanceof Undefined && operator !== '~') throw missing(value);
    if (operator === '~' || (operator === '+' && a instanceof Text && b instanceof Text))
      return this.#concatenated(toText(a), toText(b));
    if (operator === '+' && Array.isArray(a) && Array.isArray(b)) {
      this.spend(a.length + b.length);
      return [...a, ...b];
    }
    if (operator === '*' && (a instanceof Text || b instanceof Text || Array.isArray(a))) return this.#repeated(a, b);
    return arithmetic(operator, a, b);
  }

  #concatenated(a: Text, b: Text): Text {
    this.#checkLength(a.length + b.length);
    return this.#made(Text.join([a, b]));
  }

  #repeated(a: Value, b: Value): Value {
    const [what, times] = a instanceof Text || Array.isArray(a) ? [a, b] : [b as Text, a];
    const count = Math.max(0, integerOf(times, 'the other factor'));
    this.spend(count);
    if (!(what instanceof Text)) {
      this.spend(count * (what as readonly Value[]).length);
      return Array.from({ length: count }, () => what as readonly Value[]).flat();
    }
    this.#checkLength(what.length * count);
    return this.#made(Text.join(Array.from({ length: count }, () => what)));
  }

  #arguments(args: Arguments, scope: Scope): CallArguments {
    const named = new Map<string, Value>();
    const positional = args.positional.map((arg) => this.#evaluate(arg, scope));
    for (const [name, value] of args.named) named.set(name, this.#evaluate(value, scope));
    return { positional, named };
  }

  #call(callee: Value, args: CallArguments): Value {
    if (callee instanceof Undefined) throw missing(callee);
    if (typeof callee !== 'function') throw new Fault(`${typeName(callee)} cannot be called`);
    return this.#accounted(this.#nested(() => callee(args)));
  }

  /** Accounts also for texts among its arguments: `join` takes them apart. */
  #method(object: Value, name: string): Callable | undefined {
    const method = methodOf(object, name);
    return (
      method &&
      ((args) => {
        for (const arg of args.positional) if (arg instanceof Text) this.spend(arg.length / ITEMS_PER_STEP);
        return method(args);
      })
    );
  }

  #accounted(value: Value): Value {
    if (value instanceof Text) return this.#made(value);
    this.#weigh(value);
    return value;
  }

  #filtered(operand: Value, uses: readonly Use[], scope: Scope): Value {
    return uses.reduce((value, use) => {
      const args = this.#arguments(use.args, scope);
      this.at = use.at;
      return this.filter(use.name, value, args);
    }, operand);
  }

  filter(name: string, operand: Value, args: CallArguments): Value {
    if (comparing.includes(name)) this.#weighAll(operand);
    else this.#weigh(operand);
    return this.#accounted(findFilter(name)(operand, args, this));
  }

  test(name: string, operand: Value, args: CallArguments): boolean {
    if (args.positional.length > 0 || spelling.includes(name)) this.#weighAll(operand, ...args.positional);
    return findTest(name)(operand, args, this);
  }

  item(object: Value, key: Value): Value {
    if (object instanceof Undefined) throw missing(object);
    const name = key instanceof Text ? key.value : String(numberOf(key) ?? typeName(key));
    if (object instanceof Dict)
      return valueOr(object.get(name), new Undefined(`${typeName(object)} object has no element ${name}`));
    const index = numberOf(key);
    if (object instanceof Text) this.#weigh(object);
    if ((Array.isArray(object) || object instanceof Text) && index !== undefined) {
      const length = object instanceof Text ? object.characters : object.length;
      const at = index < 0 ? index + length : index;
      if (!Number.isInteger(at) || at < 0 || at >= length)
        return new Undefined(`${typeName(object)} object has no element ${index}`);
      return object instanceof Text ? object.sliceCharacters(at, at + 1) : object[at]!;
    }
    return new Undefined(`${typeName(object)} object has no attribute ${name}`);
  }
}

const missing = ({ what }: Undefined): Fault => new Fault(what.includes(' ') ? what : `${what} is undefined`);
