/** Tokens to a tree, by the grammar of Jinja 3.1 without inheritance and imports. */
import type { TemplateError } from '../errors.ts';
import { MAX_DEPTH, type Token, templateError, tokenize } from './lexer.ts';
import type { Arguments, Expression, Parameter, Statement, Target, Use } from './tree.ts';

/** @throws TemplateError with line and column */
export function parseTemplate(template: string): readonly Statement[] {
  return new Parser(template).program();
}

const none: Arguments = { positional: [], named: new Map() };
const literals: Readonly<Record<string, boolean | null>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
};
const comparisons = ['==', '!=', '<', '<=', '>', '>='];
const words = ['else', 'or', 'and', 'is', 'if', 'in', 'not'];

class Parser {
  readonly #template: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  #depth = 0;

  constructor(template: string) {
    this.#template = template;
    this.#tokens = tokenize(template);
  }

  program(): Statement[] {
    const body = this.#body([]);
    if (this.#token.type !== 'eof') throw this.#unexpected('the end of the template');
    return body;
  }

  get #token(): Token {
    return this.#tokens[this.#next]!;
  }

  #is(type: Token['type'], ...values: string[]): boolean {
    return this.#token.type === type && (values.length === 0 || values.includes(this.#token.value));
  }

  #take(type: Token['type'], ...values: string[]): Token | undefined {
    return this.#is(type, ...values) ? this.#tokens[this.#next++] : undefined;
  }

  #expect(type: Token['type'], ...values: string[]): Token {
    const token = this.#take(type, ...values);
    if (!token) throw this.#unexpected(values.length ? values.join(' or ') : `a ${type}`);
    return token;
  }

  #unexpected(expected: string): TemplateError {
    const { type, value, at } = this.#token;
    const found = type === 'end' ? `the end of the tag` : JSON.stringify(value.slice(0, 40));
    return templateError(this.#template, at, `expected ${expected}, found ${found}`);
  }

  #nested<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH)
      throw templateError(this.#template, this.#token.at, `expected at most ${MAX_DEPTH} levels of nesting`);
    const result = work();
    this.#depth--;
    return result;
  }

  /** Statements up to a tag that begins with one of `ends`, which is left behind its name. */
  #body(ends: readonly string[]): Statement[] {
    return this.#nested(() => {
      const body: Statement[] = [];
      for (;;) {
        const { type, value, at } = this.#token;
        if (type === 'eof') {
          if (ends.length === 0) return body;
          throw this.#unexpected(`{% ${ends.join(' %} or {% ')} %}`);
        }
        this.#next++;
        if (type === 'data') body.push({ kind: 'text', value, at });
        else if (value === '{{') {
          body.push({ kind: 'output', value: this.#tuple(), at });
          this.#expect('end');
        } else {
          const name = this.#expect('name');
          if (ends.includes(name.value)) return body;
          body.push(this.#statement(name));
        }
      }
    });
  }

  #statement({ value: name, at }: Token): Statement {
    switch (name) {
      case 'if':
        return this.#if(at);
      case 'for':
        return this.#for(at);
      case 'set':
        return this.#set(at);
      case 'macro': {
        const macro = this.#expect('name').value;
        const parameters = this.#parameters();
        return { kind: 'macro', name: macro, parameters, body: this.#block('endmacro'), at };
      }
      case 'call': {
        const parameters = this.#is('operator', '(') ? this.#parameters() : [];
        const call = this.#expression();
        return { kind: 'call-block', call, parameters, body: this.#block('endcall'), at };
      }
      case 'filter': {
        const filters = [this.#use()];
        while (this.#take('operator', '|')) filters.push(this.#use());
        return { kind: 'filter-block', filters, body: this.#block('endfilter'), at };
      }
      case 'generation':
        return { kind: 'block', body: this.#block('endgeneration'), at };
      case 'break':
      case 'continue':
        this.#expect('end');
        return { kind: name, at };
      default:
        throw templateError(this.#template, at, `the tag ${JSON.stringify(name.slice(0, 40))} is not known here`);
    }
  }

  /** The rest of an opening tag, then statements and the closing tag. */
  #block(end: string): Statement[] {
    this.#expect('end');
    const body = this.#body([end]);
    // `{% endmacro name %}` repeats the name.
    this.#take('name');
    this.#expect('end');
    return body;
  }

  #if(at: number): Statement {
    const branches: { test: Expression; body: Statement[] }[] = [];
    let otherwise: Statement[] = [];
    for (let word = 'elif'; word !== 'endif'; ) {
      if (word === 'elif') {
        const test = this.#tuple();
        this.#expect('end');
        branches.push({ test, body: this.#body(['elif', 'else', 'endif']) });
      } else {
        this.#expect('end');
        otherwise = this.#body(['endif']);
      }
      word = this.#tokens[this.#next - 1]!.value;
    }
    this.#expect('end');
    return { kind: 'if', branches, otherwise, at };
  }

  #for(at: number): Statement {
    const target = this.#target();
    this.#expect('name', 'in');
    const first = this.#or();
    const items = this.#is('operator', ',') ? this.#tupleFrom(first, () => this.#or()) : first;
    const test = this.#take('name', 'if') ? this.#expression() : undefined;
    this.#expect('end');
    const body = this.#body(['else', 'endfor']);
    let otherwise: Statement[] = [];
    if (this.#tokens[this.#next - 1]!.value === 'else') {
      this.#expect('end');
      otherwise = this.#body(['endfor']);
    }
    this.#expect('end');
    return { kind: 'for', target, items, test, body, otherwise, at };
  }

  #set(at: number): Statement {
    const target = this.#target();
    if (this.#take('operator', '=')) {
      const value = this.#tuple();
      this.#expect('end');
      return { kind: 'set', target, value, at };
    }
    const filters: Use[] = [];
    while (this.#take('operator', '|')) filters.push(this.#use());
    return { kind: 'set-block', target, filters, body: this.#block('endset'), at };
  }

  #target(): Target {
    const bracket = this.#take('operator', '(');
    const names = [this.#expect('name').value];
    if (this.#take('operator', '.')) return { object: names[0]!, attribute: this.#expect('name').value };
    let single = true;
    while (this.#take('operator', ',')) {
      single = false;
      names.push(this.#expect('name').value);
    }
    if (bracket) this.#expect('operator', ')');
    return { names, single };
  }

  #parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.#expect('operator', '(');
    while (!this.#take('operator', ')')) {
      if (parameters.length > 0) this.#expect('operator', ',');
      const name = this.#expect('name').value;
      parameters.push({ name, fallback: this.#take('operator', '=') ? this.#expression() : undefined });
    }
    return parameters;
  }

  #tuple(): Expression {
    const first = this.#expression();
    return this.#is('operator', ',') ? this.#tupleFrom(first, () => this.#expression()) : first;
  }

  #tupleFrom(first: Expression, item: () => Expression): Expression {
    const items = [first];
    while (this.#take('operator', ',')) {
      if (this.#is('end') || this.#is('operator', ')', '=')) break;
      items.push(item());
    }
    return { kind: 'list', items, at: first.at };
  }

  #expression(): Expression {
    return this.#nested(() => {
      let value = this.#or();
      while (this.#take('name', 'if')) {
        const test = this.#or();
        const otherwise = this.#take('name', 'else') ? this.#expression() : undefined;
        value = { kind: 'choice', test, whenTrue: value, otherwise, at: value.at };
      }
      return value;
    });
  }

  #or(): Expression {
    return this.#left(() => this.#left(() => this.#not(), 'name', 'and'), 'name', 'or');
  }

  #not(): Expression {
    const token = this.#take('name', 'not');
    if (!token) return this.#compare();
    return this.#nested(() => ({ kind: 'unary', operator: 'not', operand: this.#not(), at: token.at }));
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: { operator: string; operand: Expression }[] = [];
    for (;;) {
      let operator = this.#take('operator', ...comparisons)?.value ?? this.#take('name', 'in')?.value;
      if (operator === undefined && this.#is('name', 'not') && this.#tokens[this.#next + 1]!.value === 'in') {
        this.#next += 2;
        operator = 'not in';
      }
      if (operator === undefined) break;
      rest.push({ operator, operand: this.#sum() });
    }
    return rest.length ? { kind: 'compare', first, rest, at: first.at } : first;
  }

  #sum(): Expression {
    const product = (): Expression => this.#left(() => this.#power(), 'operator', '*', '/', '//', '%');
    return this.#left(() => this.#left(product, 'operator', '~'), 'operator', '+', '-');
  }

  #power(): Expression {
    return this.#left(() => this.#unary(true), 'operator', '**');
  }

  /** Operators of one rank, from left to right. */
  #left(operand: () => Expression, type: 'name' | 'operator', ...operators: string[]): Expression {
    let left = operand();
    for (let count = 0; ; count++) {
      const token = this.#take(type, ...operators);
      if (!token) return left;
      if (count > 4 * MAX_DEPTH)
        throw templateError(this.#template, token.at, `expected at most ${4 * MAX_DEPTH} operators in a row`);
      left = { kind: 'binary', operator: token.value, left, right: operand(), at: token.at };
    }
  }

  #unary(filters: boolean): Expression {
    const sign = this.#take('operator', '-', '+');
    const value: Expression = sign
      ? this.#nested(() => ({ kind: 'unary', operator: sign.value, operand: this.#unary(false), at: sign.at }))
      : this.#postfix(this.#primary());
    return filters ? this.#filters(value) : value;
  }

  #primary(): Expression {
    const token = this.#token;
    const { type, value, at } = token;
    this.#next++;
    if (type === 'name')
      return Object.hasOwn(literals, value)
        ? { kind: 'constant', value: literals[value]!, at }
        : { kind: 'name', name: value, at };
    if (type === 'string') {
      let text = value;
      for (let more = this.#take('string'); more; more = this.#take('string')) text += more.value;
      return { kind: 'constant', value: text, at };
    }
    if (type === 'integer') return { kind: 'constant', value: Number(value.replaceAll('_', '')), at };
    if (type === 'float') return { kind: 'float', value: Number(value.replaceAll('_', '')), at };
    if (type === 'operator' && value === '(') {
      const inner = this.#is('operator', ')') ? ({ kind: 'list', items: [], at } as const) : this.#tuple();
      this.#expect('operator', ')');
      return inner;
    }
    if (type === 'operator' && value === '[')
      return { kind: 'list', items: this.#items(']', () => this.#expression()), at };
    if (type === 'operator' && value === '{') {
      const entry = (): readonly [Expression, Expression] => {
        const key = this.#expression();
        this.#expect('operator', ':');
        return [key, this.#expression()];
      };
      return { kind: 'dict', entries: this.#items('}', entry), at };
    }
    this.#next--;
    throw this.#unexpected('an expression');
  }

  #items<T>(end: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.#take('operator', end)) {
      if (items.length > 0) {
        this.#expect('operator', ',');
        if (this.#take('operator', end)) break;
      }
      items.push(item());
    }
    return items;
  }

  #postfix(first: Expression): Expression {
    let value = first;
    for (let count = 0; count <= MAX_DEPTH; count++) {
      const { at } = this.#token;
      if (this.#take('operator', '.')) {
        const index = this.#take('integer');
        value = index
          ? { kind: 'item', object: value, key: { kind: 'constant', value: Number(index.value), at }, at }
          : { kind: 'attribute', object: value, name: this.#expect('name').value, at };
      } else if (this.#take('operator', '[')) value = this.#subscript(value, at);
      else if (this.#is('operator', '(')) value = { kind: 'call', callee: value, args: this.#arguments(), at };
      else return value;
    }
    throw templateError(this.#template, first.at, `expected at most ${MAX_DEPTH} steps after one another`);
  }

  #subscript(object: Expression, at: number): Expression {
    const bounds: (Expression | undefined)[] = [];
    let sliced = false;
    do {
      bounds.push(this.#is('operator', ':', ']') ? undefined : this.#tuple());
      if (this.#is('operator', ':')) sliced = true;
    } while (bounds.length < 3 && this.#take('operator', ':'));
    this.#expect('operator', ']');
    if (sliced) return { kind: 'slice', object, bounds, at };
    const [key] = bounds;
    if (!key) throw templateError(this.#template, at, 'expected an index, found []');
    return { kind: 'item', object, key, at };
  }

  #arguments(): Arguments {
    const positional: Expression[] = [];
    const named = new Map<string, Expression>();
    this.#expect('operator', '(');
    this.#items(')', () => {
      const name = this.#token;
      if (
        name.type === 'name' &&
        this.#tokens[this.#next + 1]!.value === '=' &&
        this.#tokens[this.#next + 1]!.type === 'operator'
      ) {
        this.#next += 2;
        named.set(name.value, this.#expression());
      } else positional.push(this.#expression());
    });
    return { positional, named };
  }

  #filters(first: Expression): Expression {
    let value = first;
    for (let count = 0; count <= MAX_DEPTH; count++) {
      const { at } = this.#token;
      if (this.#take('operator', '|')) value = { kind: 'filter', operand: value, use: this.#use(), at };
      else if (this.#take('name', 'is')) {
        const negated = this.#take('name', 'not') !== undefined;
        value = { kind: 'test', operand: value, use: this.#test(), negated, at };
      } else if (this.#is('operator', '(')) value = { kind: 'call', callee: value, args: this.#arguments(), at };
      else return value;
    }
    throw templateError(this.#template, first.at, `expected at most ${MAX_DEPTH} filters after one another`);
  }

  #use(): Use {
    const { value: name, at } = this.#expect('name');
    return { name, args: this.#is('operator', '(') ? this.#arguments() : none, at };
  }

  /** A test may take one argument without brackets: `is divisibleby 3`. */
  #test(): Use {
    const { value: name, at } = this.#expect('name');
    if (this.#is('operator', '(')) return { name, args: this.#arguments(), at };
    const begins = this.#is('name')
      ? !words.includes(this.#token.value)
      : this.#is('string') || this.#is('integer') || this.#is('float') || this.#is('operator', '[', '{');
    if (!begins) return { name, args: none, at };
    return { name, args: { positional: [this.#postfix(this.#primary())], named: new Map() }, at };
  }
}
