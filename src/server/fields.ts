/**
 * Tables of the fields that requests may have. Validation, the list of ignored fields and the documentation come from them.
 */
import type { z } from 'zod';
import { ApiError } from './errors.ts';

export interface Field<T = unknown> {
  /** used: has an effect; ignored: accepted without one; refused: an error unless its value asks for nothing. */
  readonly use: 'used' | 'ignored' | 'refused';
  readonly schema: z.ZodType<T>;
  readonly help: string;
  /** Of a refused field: values that ask for nothing. */
  readonly neutral?: (value: unknown) => boolean;
}

export const used = <T>(schema: z.ZodType<T>, help: string): Field<T> => ({ use: 'used', schema, help });
export const ignored = (schema: z.ZodType, help: string): Field => ({ use: 'ignored', schema, help });
export const refused = (schema: z.ZodType, help: string, neutral: (value: unknown) => boolean): Field => ({
  use: 'refused',
  schema,
  help,
  neutral,
});

export type Fields = Readonly<Record<string, Field>>;

/** The values of a table's used fields. Fields that are left out or null are undefined. */
export type ValuesOf<F extends Fields> = { readonly [K in keyof F]?: F[K] extends Field<infer T> ? T : never };

export interface Body<F extends Fields> {
  readonly values: ValuesOf<F>;
  /** Names of the fields that had no effect. */
  readonly ignored: readonly string[];
}

/** @throws ApiError 400 that names the field at fault */
export function readBody<F extends Fields>(fields: F, json: unknown): Body<F> {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new ApiError('the body must be a JSON object', { status: 400, code: 'invalid_body' });
  const values: Record<string, unknown> = {};
  const unused: string[] = [];
  for (const [name, given] of Object.entries(json)) {
    const field = Object.hasOwn(fields, name) ? fields[name]! : undefined;
    if (field === undefined || field.use === 'ignored') {
      unused.push(name);
      continue;
    }
    if (given === null || given === undefined) continue;
    if (field.use === 'refused') {
      if (field.neutral!(given)) continue;
      throw new ApiError(`${name} is not supported here: ${field.help}`, {
        status: 400,
        code: 'unsupported_parameter',
        param: name,
      });
    }
    const read = field.schema.safeParse(given);
    if (!read.success) throw invalid(name, read.error.issues[0]!);
    values[name] = read.data;
  }
  return { values: values as ValuesOf<F>, ignored: unused };
}

function invalid(name: string, issue: z.core.$ZodIssue): ApiError {
  const param = issue.path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : `${text}.${String(part)}`),
    name,
  );
  return new ApiError(`${param}: ${issue.message}`, { status: 400, code: 'invalid_value', param });
}
