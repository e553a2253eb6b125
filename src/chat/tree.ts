/** Syntax tree of a template. */
import type { Value } from './values.ts';

interface At {
  /** Offset in the template. */
  readonly at: number;
}

export interface Arguments {
  readonly positional: readonly Expression[];
  readonly named: ReadonlyMap<string, Expression>;
  /** `*list` (`more`) and `**dict` (`moreNamed`). */
  readonly more: Expression | undefined;
  readonly moreNamed: Expression | undefined;
}

/** A filter or test with its arguments. */
export interface Use extends At {
  readonly name: string;
  readonly args: Arguments;
}

export type Expression = At &
  (
    | { readonly kind: 'constant'; readonly value: Value }
    | { readonly kind: 'name'; readonly name: string }
    | { readonly kind: 'list' | 'tuple' | 'concat'; readonly items: readonly Expression[] }
    | { readonly kind: 'dict'; readonly entries: readonly (readonly [Expression, Expression])[] }
    | { readonly kind: 'attribute'; readonly object: Expression; readonly name: string }
    | { readonly kind: 'item'; readonly object: Expression; readonly key: Expression }
    | { readonly kind: 'slice'; readonly object: Expression; readonly bounds: readonly (Expression | undefined)[] }
    | { readonly kind: 'call'; readonly callee: Expression; readonly args: Arguments }
    | { readonly kind: 'filter'; readonly operand: Expression; readonly use: Use }
    | { readonly kind: 'test'; readonly operand: Expression; readonly use: Use; readonly negated: boolean }
    | { readonly kind: 'unary'; readonly operator: string; readonly operand: Expression }
    | { readonly kind: 'binary'; readonly operator: string; readonly left: Expression; readonly right: Expression }
    | {
        readonly kind: 'compare';
        readonly first: Expression;
        readonly rest: readonly { readonly operator: string; readonly operand: Expression }[];
      }
    | {
        readonly kind: 'choice';
        readonly test: Expression;
        readonly whenTrue: Expression;
        readonly otherwise: Expression | undefined;
      }
  );

export interface Parameter {
  readonly name: string;
  readonly fallback: Expression | undefined;
}

export interface MacroBody {
  readonly name: string;
  readonly parameters: readonly Parameter[];
  readonly body: readonly Statement[];
  /** Special names that the body uses: `varargs`, `kwargs`, `caller`. */
  readonly uses: ReadonlySet<string>;
}

export type Statement = At &
  (
    | { readonly kind: 'text'; readonly value: string }
    | { readonly kind: 'output'; readonly value: Expression }
    | { readonly kind: 'set'; readonly target: Target; readonly value: Expression }
    | {
        readonly kind: 'set-block';
        readonly target: Target;
        readonly filters: readonly Use[];
        readonly body: readonly Statement[];
      }
    | {
        readonly kind: 'if';
        readonly branches: readonly { readonly test: Expression; readonly body: readonly Statement[] }[];
        readonly otherwise: readonly Statement[];
      }
    | {
        readonly kind: 'for';
        readonly target: Target;
        readonly items: Expression;
        readonly test: Expression | undefined;
        readonly recursive: boolean;
        readonly body: readonly Statement[];
        readonly otherwise: readonly Statement[];
      }
    | ({ readonly kind: 'macro' } & MacroBody)
    | {
        readonly kind: 'call-block';
        readonly call: Expression;
        readonly caller: MacroBody;
      }
    | {
        readonly kind: 'with';
        readonly targets: readonly Target[];
        readonly values: readonly Expression[];
        readonly body: readonly Statement[];
      }
    | { readonly kind: 'autoescape'; readonly value: Expression; readonly body: readonly Statement[] }
    | { readonly kind: 'refused'; readonly name: string }
    | { readonly kind: 'filter-block'; readonly filters: readonly Use[]; readonly body: readonly Statement[] }
    | { readonly kind: 'block'; readonly scoped: boolean; readonly body: readonly Statement[] }
    | { readonly kind: 'break' | 'continue' }
  );

/** Target of an assignment: a name, an attribute of a namespace, or a list of targets. */
export type Target =
  | { readonly name: string }
  | { readonly object: string; readonly attribute: string }
  | { readonly targets: readonly Target[] };
