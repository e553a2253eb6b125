/** Parses a template to a tree, by the grammar of Jinja 3.1. */
import { ExpressionParser } from './expressions.ts';
import { MAX_DEPTH, type Token, templateError } from './lexer.ts';
import type { Expression, MacroBody, Parameter, Statement, Target, Use } from './tree.ts';

/** @throws TemplateError with line and column */
export function parseTemplate(template: string): readonly Statement[] {
  return new Parser(template).program();
}

/** Tags that need other templates. They are an error when they are executed. */
const refused: readonly string[] = ['extends', 'include', 'import', 'from'];
const special: readonly string[] = ['varargs', 'kwargs', 'caller'];
const constants: readonly string[] = ['true', 'false', 'none', 'True', 'False', 'None'];

class Parser extends ExpressionParser {
  #loops = 0;

  program(): Statement[] {
    const body = this.#body([]);
    if (this.token.type !== 'eof') throw this.unexpected('the end of the template');
    return body;
  }

  /** Statements up to a tag named by one of `ends`; the parser then is after that name. */
  #body(ends: readonly string[]): Statement[] {
    return this.nested(() => {
      const body: Statement[] = [];
      for (;;) {
        const { type, value, at } = this.token;
        if (type === 'eof') {
          if (ends.length === 0) return body;
          throw this.unexpected(`{% ${ends.join(' %} or {% ')} %}`);
        }
        this.next++;
        if (type === 'data') body.push({ kind: 'text', value, at });
        else if (value === '{{') {
          body.push({ kind: 'output', value: this.tuple(), at });
          this.expect('end');
        } else {
          const name = this.expect('name');
          if (ends.includes(name.value)) return body;
          body.push(...this.#statement(name));
          this.expect('end');
        }
      }
    });
  }

  #statement(token: Token): Statement[] {
    const { value: name, at } = token;
    switch (name) {
      case 'if':
        return [this.#if(at)];
      case 'for':
        return [this.#for(at)];
      case 'set':
        return [this.#set(at)];
      case 'with':
        return [this.#with(at)];
      case 'macro': {
        const macro = this.expect('name').value;
        const mark = this.namesRead.length;
        return [{ kind: 'macro', ...this.#macro(macro, this.#parameters(), 'endmacro', mark), at }];
      }
      case 'call': {
        const mark = this.namesRead.length;
        const parameters = this.is('operator', '(') ? this.#parameters() : [];
        const call = this.expression();
        if (call.kind !== 'call') throw templateError(this.template, at, 'expected a call of a macro');
        return [{ kind: 'call-block', call, caller: this.#macro('caller', parameters, 'endcall', mark), at }];
      }
      case 'filter': {
        const filters = [this.use()];
        while (this.take('operator', '|')) filters.push(this.use());
        return [{ kind: 'filter-block', filters, body: this.#block('endfilter'), at }];
      }
      case 'print': {
        const values: Expression[] = [];
        while (!this.is('end')) {
          if (values.length > 0) this.expect('operator', ',');
          values.push(this.expression());
        }
        return values.map((value) => ({ kind: 'output', value, at }));
      }
      case 'autoescape':
        return [{ kind: 'autoescape', value: this.expression(), body: this.#block('endautoescape'), at }];
      case 'block': {
        const block = this.expect('name').value;
        const scoped = this.take('name', 'scoped') !== undefined;
        this.take('name', 'required');
        const body = this.#block('endblock');
        this.take('name', block);
        return [{ kind: 'block', scoped, body, at }];
      }
      case 'generation':
        return [{ kind: 'block', scoped: true, body: this.#apart(() => this.#block('endgeneration')), at }];
      case 'break':
      case 'continue':
        if (this.#loops === 0) throw templateError(this.template, at, `expected a loop around ${name}`);
        return [{ kind: name, at }];
      default:
        if (refused.includes(name)) {
          while (!this.is('end')) this.next++;
          return [{ kind: 'refused', name, at }];
        }
        throw templateError(this.template, at, `the tag ${JSON.stringify(name.slice(0, 40))} is not expected here`);
    }
  }

  /** The end of an opening tag, then statements up to the name of the closing tag. */
  #block(end: string): Statement[] {
    this.take('operator', ':');
    this.expect('end');
    return this.#body([end]);
  }

  /** Parses a body in which `break` does not refer to an enclosing loop. */
  #apart<T>(work: () => T): T {
    const loops = this.#loops;
    this.#loops = 0;
    const result = work();
    this.#loops = loops;
    return result;
  }

  #macro(name: string, parameters: Parameter[], end: string, mark: number): MacroBody {
    const body = this.#apart(() => this.#block(end));
    const own = parameters.map((parameter) => parameter.name);
    const read = this.namesRead.slice(mark);
    const uses = new Set(special.filter((word) => read.includes(word) && !own.includes(word)));
    return { name, parameters, body, uses };
  }

  #if(at: number): Statement {
    const branches: { test: Expression; body: Statement[] }[] = [];
    let otherwise: Statement[] = [];
    for (let word = 'elif'; word !== 'endif'; ) {
      if (word === 'elif') {
        const test = this.tuple(false);
        this.take('operator', ':');
        this.expect('end');
        branches.push({ test, body: this.#body(['elif', 'else', 'endif']) });
      } else otherwise = this.#block('endif');
      word = this.tokens[this.next - 1]!.value;
    }
    return { kind: 'if', branches, otherwise, at };
  }

  #for(at: number): Statement {
    const target = this.#target(false);
    this.expect('name', 'in');
    const items = this.tuple(false, 'recursive');
    const test = this.take('name', 'if') ? this.expression() : undefined;
    const recursive = this.take('name', 'recursive') !== undefined;
    this.take('operator', ':');
    this.expect('end');
    this.#loops++;
    const body = this.#body(['else', 'endfor']);
    this.#loops--;
    const otherwise = this.tokens[this.next - 1]!.value === 'else' ? this.#block('endfor') : [];
    return { kind: 'for', target, items, test, recursive, body, otherwise, at };
  }

  #set(at: number): Statement {
    const target = this.#target(true);
    if (this.take('operator', '=')) return { kind: 'set', target, value: this.tuple(), at };
    const filters: Use[] = [];
    while (this.take('operator', '|')) filters.push(this.use());
    return { kind: 'set-block', target, filters, body: this.#block('endset'), at };
  }

  #with(at: number): Statement {
    const targets: Target[] = [];
    const values: Expression[] = [];
    while (!this.is('end')) {
      if (targets.length > 0) this.expect('operator', ',');
      targets.push(this.#target(false));
      this.expect('operator', '=');
      values.push(this.expression());
    }
    return { kind: 'with', targets, values, body: this.#block('endwith'), at };
  }

  /** Targets of an assignment: names, with `attributes` also attributes of namespaces, in parentheses and with commas. */
  #target(attributes: boolean): Target {
    return this.nested(() => {
      const targets = [this.#oneTarget(attributes)];
      if (!this.is('operator', ',')) return targets[0]!;
      while (this.take('operator', ',')) {
        if (this.is('operator', ')')) break;
        targets.push(this.#oneTarget(attributes));
      }
      return { targets };
    });
  }

  #oneTarget(attributes: boolean): Target {
    if (this.take('operator', '(')) {
      const inner = this.#target(attributes);
      this.expect('operator', ')');
      return inner;
    }
    const { value: name, at } = this.expect('name');
    if (constants.includes(name)) throw templateError(this.template, at, `expected a name to assign to, found ${name}`);
    if (attributes && this.take('operator', '.')) return { object: name, attribute: this.expect('name').value };
    return { name };
  }

  #parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.expect('operator', '(');
    while (!this.take('operator', ')')) {
      if (parameters.length > 0) this.expect('operator', ',');
      const { value: name, at } = this.expect('name');
      const fallback = this.take('operator', '=') ? this.expression() : undefined;
      if (!fallback && parameters.at(-1)?.fallback)
        throw templateError(this.template, at, 'expected a default for this parameter too');
      parameters.push({ name, fallback });
      if (parameters.length > MAX_DEPTH) throw this.unexpected(`at most ${MAX_DEPTH} parameters`);
    }
    return parameters;
  }
}
