/** Errors that people are meant to read: what was expected, what was found, where. */

export class LanewiseError extends Error {
  /** Stable, for programs: `InvalidOffset`, `UnknownModelType`, ... */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A file that does not say what its format demands. */
export class FormatError extends LanewiseError {
  readonly file: string;
  /** Byte offset in the file, where known. */
  readonly offset: number | undefined;
  /** Tensor or key concerned, where known. */
  readonly key: string | undefined;

  constructor(code: string, file: string, what: string, where: { offset?: number; key?: string } = {}) {
    const at = where.offset === undefined ? '' : ` at byte ${where.offset}`;
    const key = where.key === undefined ? '' : `, ${JSON.stringify(where.key.slice(0, 200))}`;
    super(code, `${file}${at}${key}: ${what}`);
    this.file = file;
    this.offset = where.offset;
    this.key = where.key;
  }
}

/** A config.json, tokenizer or set of tensors that does not describe a model we can run. `problems` lists all of them. */
export class ModelError extends LanewiseError {
  readonly problems: readonly string[];

  constructor(code: string, message: string, problems: readonly string[] = []) {
    super(code, problems.length ? `${message}\n${problems.map((p) => `  ${p}`).join('\n')}` : message);
    this.problems = problems;
  }
}

/** An option outside its range. */
export class OptionError extends LanewiseError {
  readonly option: string;

  constructor(option: string, expected: string, found: unknown) {
    super('InvalidOption', `${option} must be ${expected}, got ${describe(found)}`);
    this.option = option;
  }
}

export class OutOfMemoryError extends LanewiseError {
  readonly asked: number;
  readonly available: number;

  constructor(what: string, asked: number, available: number, message?: string) {
    super('OutOfMemory', message ?? `${what} needs ${megabytes(asked)}, ${megabytes(available)} are available`);
    this.asked = asked;
    this.available = available;
  }
}

/** Where the engine refuses a WebAssembly memory or module, whose addresses it reserves in full. */
export function memoryRefused(bytes: number): OutOfMemoryError {
  const message =
    'WebAssembly could not reserve a memory, for which engines take 8 GB and more of addresses: raise the limit of the address space (ulimit -v) or free memory';
  return new OutOfMemoryError('WebAssembly', bytes, 0, message);
}

/** A chat template that cannot be read or rendered, or that refuses its messages. */
export class TemplateError extends LanewiseError {
  /** Counted from 1, where known. */
  readonly line: number | undefined;
  readonly column: number | undefined;

  constructor(code: string, what: string, where: { line?: number; column?: number } = {}) {
    super(code, where.line === undefined ? what : `chat template, line ${where.line}, column ${where.column}: ${what}`);
    this.line = where.line;
    this.column = where.column;
  }
}

/** A download, or a cache of downloads, that is not as it should be. */
export class HubError extends LanewiseError {}

/** A thread or kernel that failed. */
export class BackendError extends LanewiseError {}

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
  constructor(where: string, what: string) {
    super('InvalidTokenizer', `${where}: ${what}`);
  }
}
