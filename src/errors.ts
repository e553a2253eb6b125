/** Errors for users. Their messages are one line: what was expected, what was found, where. */
import type {
  BackendErrorCode,
  ErrorCode,
  FormatErrorCode,
  HubErrorCode,
  ModelErrorCode,
  TemplateErrorCode,
} from './error-codes.ts';

export class LanewiseError extends Error {
  /** Stable, for programs: `InvalidOffset`, `UnknownModelType`, ... (docs/errors.md) */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A file that violates its format. */
export class FormatError extends LanewiseError {
  declare readonly code: FormatErrorCode;
  readonly file: string;
  /** Byte offset in the file, if known. */
  readonly offset: number | undefined;
  /** Tensor or key, if known. */
  readonly key: string | undefined;

  constructor(code: FormatErrorCode, file: string, what: string, where: { offset?: number; key?: string } = {}) {
    const at = where.offset === undefined ? '' : ` at byte ${where.offset}`;
    const key = where.key === undefined ? '' : `, ${JSON.stringify(where.key.slice(0, 200))}`;
    super(code, `${file}${at}${key}: ${what}`);
    this.file = file;
    this.offset = where.offset;
    this.key = where.key;
  }
}

/** A config.json, tokenizer or set of tensors that does not describe a supported model. `problems` lists all problems. */
export class ModelError extends LanewiseError {
  declare readonly code: ModelErrorCode;
  readonly problems: readonly string[];

  constructor(code: ModelErrorCode, message: string, problems: readonly string[] = []) {
    super(code, problems.length ? `${message}\n${problems.map((p) => `  ${p}`).join('\n')}` : message);
    this.problems = problems;
  }
}

/** An option outside its range. */
export class OptionError extends LanewiseError {
  declare readonly code: 'InvalidOption';
  readonly option: string;

  constructor(option: string, expected: string, found: unknown) {
    super('InvalidOption', `${option} must be ${expected}, got ${describe(found)}`);
    this.option = option;
  }
}

export class OutOfMemoryError extends LanewiseError {
  declare readonly code: 'OutOfMemory';
  readonly asked: number;
  readonly available: number;

  constructor(what: string, asked: number, available: number, message?: string) {
    super('OutOfMemory', message ?? `${what} needs ${megabytes(asked)}, ${megabytes(available)} are available`);
    this.asked = asked;
    this.available = available;
  }
}

/** The error if the JavaScript engine refuses a WebAssembly memory or module: it reserves all its addresses at once. */
export function memoryRefused(bytes: number): OutOfMemoryError {
  const message =
    'WebAssembly could not reserve a memory, for which engines take 8 GB and more of addresses: raise the limit of the address space (ulimit -v) or free memory';
  return new OutOfMemoryError('WebAssembly', bytes, 0, message);
}

/** A chat template that is invalid, fails, or refuses its messages. */
export class TemplateError extends LanewiseError {
  declare readonly code: TemplateErrorCode;
  /** Line and column from 1, if known. */
  readonly line: number | undefined;
  readonly column: number | undefined;

  constructor(code: TemplateErrorCode, what: string, where: { line?: number; column?: number } = {}) {
    super(code, where.line === undefined ? what : `chat template, line ${where.line}, column ${where.column}: ${what}`);
    this.line = where.line;
    this.column = where.column;
  }
}

/** An error of a download, the hub, or the cache of downloads. */
export class HubError extends LanewiseError {
  declare readonly code: HubErrorCode;

  constructor(code: HubErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}

/** A thread or kernel that failed. */
export class BackendError extends LanewiseError {
  declare readonly code: BackendErrorCode;

  constructor(code: BackendErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options);
  }
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 100));
  if (typeof value === 'number' || value === null || value === undefined || typeof value === 'boolean')
    return String(value);
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** A tokenizer, or a vocabulary of a model file, that cannot be used. */
export class TokenizerError extends ModelError {
  declare readonly code: 'InvalidTokenizer';

  constructor(where: string, what: string) {
    super('InvalidTokenizer', `${where}: ${what}`);
  }
}
