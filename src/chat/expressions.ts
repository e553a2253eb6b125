/** Parses expressions by the grammar of Jinja 3.1. */
import type { TemplateError } from '../errors.ts';
import { MAX_DEPTH, type Token, templateError, tokenize } from './lexer.ts';
import { Text } from './text.ts';
import type { Arguments, Expression, Use } from './tree.ts';
import { Float, integer, type Value } from './values.ts';

const none: Arguments = { positional: [], named: new Map(), more: undefined, moreNamed: undefined };
const literals: Readonly<Record<string, boolean | null>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
};
const comparisons = ['==', '!=', '<', '<=', '>', '>='];
const MOST_ITEMS_IN_A_ROW = 4 * MAX_DEPTH;

export class ExpressionParser {
  protected readonly template: string;
  protected readonly tokens: readonly Token[];
  protected next = 0;
  /** Names read so far. Macros look here whether their body uses a special name. */
  protected readonly namesRead: string[] = [];
  #depth = 0;

  constructor(template: string) {
    this.template = template;
    this.tokens = tokenize(template);
  }

  protected get token(): Token {
    return this.tokens[this.next]!;
  }

  protected is(type: Token['type'], ...values: string[]): boolean {
    return this.token.type === type && (values.length === 0 || values.includes(this.token.value));
  }

  protected take(type: Token['type'], ...values: string[]): Token | undefined {
    return this.is(type, ...values) ? this.tokens[this.next++] : undefined;
  }

  protected expect(type: Token['type'], ...values: string[]): Token {
    const token = this.take(type, ...values);
    if (!token) throw this.unexpected(values.length ? values.join(' or ') : `a ${type}`);
    return token;
  }

  protected unexpected(expected: string): TemplateError {
    const { type, value, at } = this.token;
    const found = type === 'end' ? `the end of the tag` : JSON.stringify(value.slice(0, 40));
    return templateError(this.template, at, `expected ${expected}, found ${found}`);
  }

  protected nested<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH)
      throw templateError(this.template, this.token.at, `expected at most ${MAX_DEPTH} levels of nesting`);
    const result = work();
    this.#depth--;
    return result;
  }

  /** One expression, or several with commas. */
  protected tuple(conditions = true, ...ends: string[]): Expression {
    const { at } = this.token;
    const items: Expression[] = [];
    while (
      !(
        items.length > 0 &&
        (this.is('end') || this.is('operator', ')') || (ends.length > 0 && this.is('name', ...ends)))
      )
    ) {
      items.push(conditions ? this.expression() : this.or());
      if (!this.take('operator', ',')) {
        if (items.length === 1) return items[0]!;
        break;
      }
    }
    return { kind: 'tuple', items, at };
  }

  protected expression(): Expression {
    return this.nested(() => {
      let value = this.or();
      while (this.take('name', 'if')) {
        const test = this.or();
        const otherwise = this.take('name', 'else') ? this.expression() : undefined;
        value = { kind: 'choice', test, whenTrue: value, otherwise, at: value.at };
      }
      return value;
    });
  }

  protected or(): Expression {
    return this.#left(() => this.#left(() => this.#not(), 'name', 'and'), 'name', 'or');
  }

  #not(): Expression {
    const token = this.take('name', 'not');
    if (!token) return this.#compare();
    return this.nested(() => ({ kind: 'unary', operator: 'not', operand: this.#not(), at: token.at }));
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: { operator: string; operand: Expression }[] = [];
    for (;;) {
      let operator = this.take('operator', ...comparisons)?.value ?? this.take('name', 'in')?.value;
      if (operator === undefined && this.is('name', 'not') && this.tokens[this.next + 1]!.value === 'in') {
        this.next += 2;
        operator = 'not in';
      }
      if (operator === undefined) break;
      rest.push({ operator, operand: this.#sum() });
    }
    return rest.length ? { kind: 'compare', first, rest, at: first.at } : first;
  }

  #sum(): Expression {
    return this.#left(() => this.#concatenation(), 'operator', '+', '-');
  }

  #concatenation(): Expression {
    const product = (): Expression => this.#left(() => this.#power(), 'operator', '*', '/', '//', '%');
    const items = [product()];
    while (this.take('operator', '~')) items.push(product());
    return items.length === 1 ? items[0]! : { kind: 'concat', items, at: items[0]!.at };
  }

  #power(): Expression {
    return this.#left(() => this.#unary(true), 'operator', '**');
  }

  /** Left-associative operators of one precedence. */
  #left(operand: () => Expression, type: 'name' | 'operator', ...operators: string[]): Expression {
    let left = operand();
    for (let count = 0; ; count++) {
      const token = this.take(type, ...operators);
      if (!token) return left;
      if (count > MOST_ITEMS_IN_A_ROW)
        throw templateError(this.template, token.at, `expected at most ${MOST_ITEMS_IN_A_ROW} operators in a row`);
      left = { kind: 'binary', operator: token.value, left, right: operand(), at: token.at };
    }
  }

  #unary(filters: boolean): Expression {
    const sign = this.take('operator', '-', '+');
    let value: Expression = sign
      ? this.nested(() => ({ kind: 'unary', operator: sign.value, operand: this.#unary(false), at: sign.at }))
      : this.#primary();
    value = this.#postfix(value);
    return filters ? this.#filters(value) : value;
  }

  #constant(value: Value, at: number): Expression {
    return { kind: 'constant', value, at };
  }

  #primary(): Expression {
    const { type, value, at } = this.token;
    this.next++;
    if (type === 'name') {
      if (Object.hasOwn(literals, value)) return this.#constant(literals[value]!, at);
      this.namesRead.push(value);
      return { kind: 'name', name: value, at };
    }
    if (type === 'string') {
      let text = value;
      for (let more = this.take('string'); more; more = this.take('string')) text += more.value;
      return this.#constant(new Text(text), at);
    }
    if (type === 'integer') return this.#integer(value, at);
    if (type === 'float') return this.#constant(new Float(Number(value.replaceAll('_', ''))), at);
    if (type === 'operator' && value === '(') {
      const inner: Expression = this.is('operator', ')') ? { kind: 'tuple', items: [], at } : this.tuple();
      this.expect('operator', ')');
      return inner;
    }
    if (type === 'operator' && value === '[')
      return { kind: 'list', items: this.#items(']', () => this.expression()), at };
    if (type === 'operator' && value === '{') {
      const entry = (): readonly [Expression, Expression] => {
        const key = this.expression();
        this.expect('operator', ':');
        return [key, this.expression()];
      };
      return { kind: 'dict', entries: this.#items('}', entry), at };
    }
    this.next--;
    throw this.unexpected('an expression');
  }

  #integer(digits: string, at: number): Expression {
    if (digits.length > 4300) throw templateError(this.template, at, 'expected integers of at most 4300 digits');
    return this.#constant(integer(BigInt(digits.replaceAll('_', ''))), at);
  }

  #items<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.take('operator', end)) {
      if (items.length > 0) {
        this.expect('operator', ',');
        if (this.take('operator', end)) break;
      }
      items.push(item());
    }
    return items;
  }

  #postfix(first: Expression): Expression {
    let value = first;
    for (let count = 0; count <= MAX_DEPTH; count++) {
      const { at } = this.token;
      if (this.take('operator', '.')) {
        const index = this.take('integer');
        value = index
          ? { kind: 'item', object: value, key: this.#integer(index.value, at), at }
          : { kind: 'attribute', object: value, name: this.expect('name').value, at };
      } else if (this.take('operator', '[')) value = this.#subscript(value, at);
      else if (this.is('operator', '(')) value = { kind: 'call', callee: value, args: this.arguments(), at };
      else return value;
    }
    throw templateError(this.template, first.at, `expected at most ${MAX_DEPTH} attributes, items and calls in a row`);
  }

  #subscript(object: Expression, at: number): Expression {
    const keys: (Expression | (Expression | undefined)[])[] = [];
    do {
      keys.push(this.#subscribed());
    } while (this.take('operator', ','));
    this.expect('operator', ']');
    const [key] = keys;
    if (keys.length === 1 && Array.isArray(key)) return { kind: 'slice', object, bounds: key, at };
    if (keys.some(Array.isArray)) throw templateError(this.template, at, 'expected a single slice in brackets');
    if (keys.length === 1) return { kind: 'item', object, key: key as Expression, at };
    return { kind: 'item', object, key: { kind: 'tuple', items: keys as Expression[], at }, at };
  }

  /** The key in brackets, or the bounds of a slice. */
  #subscribed(): Expression | (Expression | undefined)[] {
    const bounds: (Expression | undefined)[] = [];
    for (let count = 0; count < 3; count++) {
      bounds.push(this.is('operator', ':', ']', ',') ? undefined : this.expression());
      if (count === 2 || !this.take('operator', ':')) break;
    }
    const [key] = bounds;
    if (bounds.length > 1) return bounds;
    if (!key) throw this.unexpected('an index');
    return key;
  }

  protected arguments(): Arguments {
    const positional: Expression[] = [];
    const named = new Map<string, Expression>();
    let [more, moreNamed]: (Expression | undefined)[] = [];
    const { at } = this.expect('operator', '(');
    const ensure = (fits: boolean): void => {
      if (!fits) throw templateError(this.template, at, 'expected positional arguments before named ones');
    };
    this.#items(')', () => {
      const name = this.token;
      const { type, value } = this.tokens[this.next + 1]!;
      if (this.take('operator', '*')) {
        ensure(!more && !moreNamed);
        more = this.expression();
      } else if (this.take('operator', '**')) {
        ensure(!moreNamed);
        moreNamed = this.expression();
      } else if (name.type === 'name' && type === 'operator' && value === '=') {
        ensure(!moreNamed && !named.has(name.value));
        this.next += 2;
        named.set(name.value, this.expression());
      } else {
        ensure(!more && !moreNamed && named.size === 0);
        positional.push(this.expression());
      }
    });
    return { positional, named, more, moreNamed };
  }

  #filters(first: Expression): Expression {
    let value = first;
    for (let count = 0; count <= MAX_DEPTH; count++) {
      const { at } = this.token;
      if (this.take('operator', '|')) value = { kind: 'filter', operand: value, use: this.use(), at };
      else if (this.take('name', 'is')) {
        const negated = this.take('name', 'not') !== undefined;
        value = { kind: 'test', operand: value, use: this.#test(), negated, at };
      } else if (this.is('operator', '(')) value = { kind: 'call', callee: value, args: this.arguments(), at };
      else return value;
    }
    throw templateError(this.template, first.at, `expected at most ${MAX_DEPTH} filters in a row`);
  }

  #useName(): Token {
    const name = this.expect('name');
    let { value } = name;
    while (this.take('operator', '.')) value += `.${this.expect('name').value}`;
    return { ...name, value };
  }

  protected use(): Use {
    const { value: name, at } = this.#useName();
    return { name, args: this.is('operator', '(') ? this.arguments() : none, at };
  }

  /** A test. One argument may follow without parentheses: `is divisibleby 3`. */
  #test(): Use {
    const { value: name, at } = this.#useName();
    if (this.is('operator', '(')) return { name, args: this.arguments(), at };
    const begins = this.is('name')
      ? !this.is('name', 'else', 'or', 'and')
      : this.is('string') || this.is('integer') || this.is('float') || this.is('operator', '[', '{');
    if (!begins) return { name, args: none, at };
    if (this.is('name', 'is')) throw this.unexpected('several tests to be joined by and');
    return { name, args: { ...none, positional: [this.#postfix(this.#primary())] }, at };
  }
}
