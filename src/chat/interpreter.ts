/**
 * Interprets a parsed template, within limits of steps, output and nesting. Not a library, because every function must
 * keep the origin of text (src/chat/text.ts) and every step must be counted.
 */
import { TemplateError } from '../errors.ts';
import { call, getAttribute, getItem } from './access.ts';
import { applyFilter, applyTest } from './filters.ts';
import { checkAttribute, Raised } from './globals.ts';
import { MAX_DEPTH, templateError } from './lexer.ts';
import { Loop } from './loop.ts';
import { type Given, Macro } from './macro.ts';
import { binary, compares, concatenated, unary } from './operators.ts';
import { toText } from './represent.ts';
import { slice } from './slices.ts';
import { escaped, Markup, Text } from './text.ts';
import type { Arguments, Expression, MacroBody, Statement, Target, Use } from './tree.ts';
import {
  type CallArguments,
  Dict,
  Fault,
  Generator,
  isTrue,
  iterate,
  List,
  listOf,
  Namespace,
  Thing,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts';
import { checkLength, type Limits, spend, spendCharacters, within } from './work.ts';

/** The variables of a body. Most bodies have few, so a list is faster than a map. */
class Scope {
  readonly #names: string[] = [];
  readonly #values: Value[] = [];
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  get(name: string): Value | undefined {
    for (let scope: Scope | undefined = this; scope; scope = scope.#outer) {
      const at = scope.#names.indexOf(name);
      if (at >= 0) return scope.#values[at];
    }
    return undefined;
  }

  set(name: string, value: Value): void {
    const at = this.#names.indexOf(name);
    if (at >= 0) this.#values[at] = value;
    else {
      this.#names.push(name);
      this.#values.push(value);
    }
  }
}

/** The variable `self`. */
class Self extends Thing {
  readonly type = 'TemplateReference';
}

type Signal = 'break' | 'continue' | undefined;
type For = Extract<Statement, { kind: 'for' }>;

/** Renders a template. @param globals its global variables @throws TemplateError with line and column */
export function interpret(
  template: string,
  program: readonly Statement[],
  globals: ReadonlyMap<string, Value>,
  limits: Limits,
): Text {
  const interpreter = new Interpreter();
  const scope = new Scope();
  scope.set('self', new Self());
  for (const [name, value] of globals) scope.set(name, value);
  try {
    return within(limits, () => {
      const out: Text[] = [];
      interpreter.run(program, scope, out);
      return joined(out);
    });
  } catch (error) {
    if (error instanceof Raised) throw new TemplateError('Raised', error.message);
    if (error instanceof Fault) throw templateError(template, interpreter.at, error.message);
    if (error instanceof RangeError) throw templateError(template, interpreter.at, 'expected less nesting');
    throw error;
  }
}

function joined(out: readonly Text[]): Text {
  const length = out.reduce((sum, text) => sum + text.length, 0);
  spendCharacters(length);
  return Text.join(out);
}

class Interpreter {
  /** Offset of the current statement or expression, for errors. */
  at = 0;
  #written = 0;
  #depth = 0;
  /** Whether output is escaped (`{% autoescape true %}`). */
  #escapes = false;

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
      spend(1);
      this.at = statement.at;
      const signal = this.#statement(statement, scope, out);
      if (signal) return signal;
    }
    return undefined;
  }

  #write(text: Text, out: Text[]): void {
    this.#written += text.length;
    checkLength(this.#written);
    if (text.length > 0) out.push(text);
  }

  #writeValue(value: Value, out: Text[]): void {
    const text = toText(value);
    this.#write(this.#escapes ? escaped(text) : text, out);
  }

  /** Runs a body and returns its output. */
  #captured(body: readonly Statement[], scope: Scope): Text {
    return this.#nested(() => {
      const out: Text[] = [];
      const before = this.#written;
      this.run(body, scope, out);
      this.#written = before;
      const text = joined(out);
      return this.#escapes ? Markup.of(text) : text;
    });
  }

  #statement(statement: Statement, scope: Scope, out: Text[]): Signal {
    switch (statement.kind) {
      case 'text':
        this.#write(new Text(statement.value), out);
        return undefined;
      case 'output':
        this.#writeValue(this.#evaluate(statement.value, scope), out);
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
        this.#writeValue(this.#filtered(text, statement.filters, scope), out);
        return undefined;
      }
      case 'if': {
        const branch = statement.branches.find(({ test }) => isTrue(this.#evaluate(test, scope)));
        return this.#nested(() => this.run(branch ? branch.body : statement.otherwise, scope, out));
      }
      case 'for':
        return this.#nested(() => this.#for(statement, scope, out));
      case 'with': {
        const inner = new Scope(scope);
        const values = statement.values.map((value) => this.#evaluate(value, scope));
        for (const [i, target] of statement.targets.entries()) this.#assign(target, values[i]!, inner);
        return this.#nested(() => this.run(statement.body, inner, out));
      }
      case 'macro':
        scope.set(statement.name, this.#macro(statement, scope));
        return undefined;
      case 'call-block': {
        const caller = this.#macro(statement.caller, scope);
        if (statement.call.kind !== 'call') throw new Fault('expected a call of a macro');
        const callee = this.#evaluate(statement.call.callee, scope);
        const args = this.#arguments(statement.call.args, scope);
        const named = new Map([...args.named, ['caller', caller] as const]);
        this.at = statement.at;
        this.#writeValue(
          this.#nested(() => call(callee, { ...args, named })),
          out,
        );
        return undefined;
      }
      case 'block':
        return this.#nested(() => this.run(statement.body, new Scope(scope), out));
      case 'autoescape': {
        const before = this.#escapes;
        this.#escapes = isTrue(this.#evaluate(statement.value, scope));
        const signal = this.#nested(() => this.run(statement.body, new Scope(scope), out));
        this.#escapes = before;
        return signal;
      }
      case 'refused':
        throw new Fault(`{% ${statement.name} %} needs another template: a chat template has none`);
      default:
        return statement.kind;
    }
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if ('name' in target) scope.set(target.name, value);
    else if ('targets' in target) {
      const items = listOf(value);
      if (items.length !== target.targets.length)
        throw new Fault(`expected ${target.targets.length} values, found ${items.length}`);
      for (const [i, one] of target.targets.entries()) this.#assign(one, items[i]!, scope);
    } else {
      const object = scope.get(target.object);
      if (!(object instanceof Namespace))
        throw new Fault(`${target.object} is not a namespace: its attributes cannot be set`);
      const name = new Text(target.attribute);
      checkAttribute(name);
      object.dict.set(name, value);
    }
  }

  #for(statement: For, scope: Scope, out: Text[]): Signal {
    const items = this.#evaluate(statement.items, scope);
    this.at = statement.at;
    return this.#loop(statement, items, 0, scope, out);
  }

  #loop(statement: For, items: Value, depth: number, scope: Scope, out: Text[]): Signal {
    const { target, test, body, otherwise, recursive } = statement;
    const chosen = test ? new Generator(this.#tested(iterate(items), target, test, scope)) : items;
    const recurse = (inner: Value, level: number): Value =>
      this.#nested(() => {
        const piece: Text[] = [];
        const before = this.#written;
        this.#loop(statement, inner, level, scope, piece);
        this.#written = before;
        return joined(piece);
      });
    const loop = new Loop(chosen, iterate(chosen), depth, recursive ? recurse : undefined);
    let any = false;
    for (let item = loop.advance(); item !== undefined; item = loop.advance()) {
      any = true;
      const inner = new Scope(scope);
      inner.set('loop', loop);
      this.#assign(target, item, inner);
      spend(1);
      if (this.run(body, inner, out) === 'break') break;
    }
    return any ? undefined : this.run(otherwise, new Scope(scope), out);
  }

  *#tested(values: Iterator<Value>, target: Target, test: Expression, scope: Scope): IterableIterator<Value> {
    for (let next = values.next(); !next.done; next = values.next()) {
      const inner = new Scope(scope);
      this.#assign(target, next.value, inner);
      if (isTrue(this.#evaluate(test, inner))) yield next.value;
    }
  }

  #macro(macro: MacroBody, scope: Scope): Macro {
    return new Macro(macro, (given: Given) => {
      const inner = new Scope(scope);
      for (const name of macro.uses) inner.set(name, given.get(name)!);
      for (const { name, fallback } of macro.parameters) {
        const value = given.get(name);
        if (value !== undefined) inner.set(name, value);
        else if (fallback) inner.set(name, this.#evaluate(fallback, inner));
        else inner.set(name, new Undefined(`parameter '${name}' was not provided`));
      }
      return this.#captured(macro.body, inner);
    });
  }

  #evaluate(expression: Expression, scope: Scope): Value {
    spend(1);
    this.at = expression.at;
    switch (expression.kind) {
      case 'constant':
        return expression.value;
      case 'name': {
        const value = scope.get(expression.name);
        return value === undefined ? new Undefined(expression.name) : value;
      }
      case 'list':
        return new List(this.#all(expression.items, scope));
      case 'tuple':
        return new Tuple(this.#all(expression.items, scope));
      case 'concat': {
        const texts = this.#all(expression.items, scope).map(toText);
        return this.#escapes ? Markup.of(concatenated(texts.map(escaped))) : concatenated(texts);
      }
      case 'dict': {
        const dict = new Dict();
        for (const [key, value] of expression.entries)
          dict.set(this.#evaluate(key, scope), this.#evaluate(value, scope));
        return dict;
      }
      case 'attribute': {
        const object = this.#evaluate(expression.object, scope);
        this.at = expression.at;
        return getAttribute(object, expression.name);
      }
      case 'item': {
        const object = this.#evaluate(expression.object, scope);
        const key = this.#evaluate(expression.key, scope);
        this.at = expression.at;
        return getItem(object, key);
      }
      case 'slice': {
        const object = this.#evaluate(expression.object, scope);
        const bounds = expression.bounds.map((bound) => (bound ? this.#evaluate(bound, scope) : undefined));
        this.at = expression.at;
        return slice(object, bounds);
      }
      case 'call': {
        const callee = this.#evaluate(expression.callee, scope);
        const args = this.#arguments(expression.args, scope);
        this.at = expression.at;
        return this.#nested(() => call(callee, args));
      }
      case 'filter':
        return this.#filtered(this.#evaluate(expression.operand, scope), [expression.use], scope);
      case 'test': {
        const operand = this.#evaluate(expression.operand, scope);
        const args = this.#arguments(expression.use.args, scope);
        this.at = expression.use.at;
        return applyTest(expression.use.name, operand, args) !== expression.negated;
      }
      case 'unary':
        return unary(expression.operator, this.#evaluate(expression.operand, scope));
      case 'binary': {
        const { operator } = expression;
        const left = this.#evaluate(expression.left, scope);
        if (operator === 'and' && !isTrue(left)) return left;
        if (operator === 'or' && isTrue(left)) return left;
        const right = this.#evaluate(expression.right, scope);
        this.at = expression.at;
        return operator === 'and' || operator === 'or' ? right : binary(operator, left, right);
      }
      case 'compare': {
        let left = this.#evaluate(expression.first, scope);
        for (const { operator, operand } of expression.rest) {
          const right = this.#evaluate(operand, scope);
          this.at = expression.at;
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

  #all(expressions: readonly Expression[], scope: Scope): Value[] {
    return expressions.map((expression) => this.#evaluate(expression, scope));
  }

  #arguments({ positional, named, more, moreNamed }: Arguments, scope: Scope): CallArguments {
    const values = this.#all(positional, scope);
    const names = new Map<string, Value>();
    for (const [name, value] of named) names.set(name, this.#evaluate(value, scope));
    if (more) values.push(...listOf(this.#evaluate(more, scope)));
    if (moreNamed) {
      const dict = this.#evaluate(moreNamed, scope);
      if (!(dict instanceof Dict)) throw new Fault(`expected a dict after **, found ${typeName(dict)}`);
      for (const [key, value] of dict.entries.values()) {
        if (!(key instanceof Text)) throw new Fault(`expected texts as keys after **, found ${typeName(key)}`);
        if (names.has(key.value)) throw new Fault(`the argument ${key.value.slice(0, 40)} occurs twice`);
        names.set(key.value, value);
      }
    }
    return { positional: values, named: names };
  }

  #filtered(operand: Value, uses: readonly Use[], scope: Scope): Value {
    return uses.reduce((value, use) => {
      const args = this.#arguments(use.args, scope);
      this.at = use.at;
      return this.#nested(() => applyFilter(use.name, value, args));
    }, operand);
  }
}
