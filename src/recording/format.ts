/**
 * The lines of a recording, each a JSON object: first the model and how it was loaded, then what happened to each request.
 *
 *   {"recording": "lanewise", "version": 1, "model": ..., "plan": ..., "load": ..., "states": ["hidden.0", ...]}
 *   {"request": 0, "prompt": [12, 7], "options": {"seed": 1, ...}}
 *   {"request": 0, "at": 0, "rows": ["...", "..."]}       a row per position from `at` on: checksums of its states
 *   {"request": 0, "token": 5, "logprob": -0.25, "logits": "..."}
 *   {"request": 0, "end": "stop", "text": "..."}
 *
 * Lines of different requests may alternate. A request without an `end` was cut off. Checksums are 8 hexadecimal digits each.
 */
import { FormatError } from '../errors.ts';

export const VERSION = 1;
const DIGITS = 8;

export interface RecordedModel {
  readonly name: string;
  readonly type: string;
  readonly parameters: number;
  readonly layers: number;
  readonly dim: number;
  readonly vocab: number;
  /** Checksum of the tensor of each weight, as the file has it. */
  readonly weights: Readonly<Record<string, string>>;
}

export interface RecordedLoad {
  readonly kvCache: string;
  readonly backend: string;
  readonly contextLength: number;
  /** The policy, or the name of the plan. */
  readonly quantize: string;
  /** Of the machine that recorded; these change no bits. */
  readonly threads: number;
  readonly vectorBits: number | null;
}

export interface Head {
  readonly recording: 'lanewise';
  readonly version: typeof VERSION;
  /** What the user named the model; empty: the embedded model. */
  readonly source?: string;
  readonly model: RecordedModel;
  /** A storage plan: how each matrix is stored. */
  readonly plan: { readonly version: 1; readonly weights: Readonly<Record<string, string>> };
  readonly load: RecordedLoad;
  /** Names of the states whose checksums a row has, in the order of the layers. */
  readonly states: readonly string[];
}

export interface RequestEntry {
  readonly request: number;
  readonly prompt: readonly number[];
  /** Options of the generation, as JSON has them. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Options that a program gave as functions: such a request cannot be replayed. */
  readonly functions?: readonly string[];
}

export interface RowsEntry {
  readonly request: number;
  readonly at: number;
  readonly rows: readonly string[];
}

export interface TokenEntry {
  readonly request: number;
  readonly token: number;
  /** Null: -Infinity. */
  readonly logprob: number | null;
  readonly logits: string;
}

export interface EndEntry {
  readonly request: number;
  readonly end: string;
  readonly text: string;
}

export type Entry = Head | RequestEntry | RowsEntry | TokenEntry | EndEntry;

export interface RecordedRequest {
  readonly prompt: readonly number[];
  readonly options: Readonly<Record<string, unknown>>;
  readonly functions: readonly string[];
  /** Position -> checksums of its states. A position that was computed again, for instance after a pause, has several. */
  readonly rows: ReadonlyMap<number, readonly string[]>;
  readonly tokens: readonly TokenEntry[];
  readonly end: EndEntry | undefined;
}

export interface RecordingContent {
  readonly head: Head;
  readonly requests: readonly RecordedRequest[];
}

export const isHead = (entry: Entry): entry is Head => 'recording' in entry;

/** The checksum of state `index` in a row. */
export const stateOf = (row: string, index: number): string => row.slice(index * DIGITS, (index + 1) * DIGITS);

type Fields = Readonly<Record<string, unknown>>;

interface OpenRequest extends RecordedRequest {
  readonly rows: Map<number, string[]>;
  readonly tokens: TokenEntry[];
  end: EndEntry | undefined;
}

/** Reads lines one by one. @throws FormatError InvalidRecording, UnsupportedVersion, naming the line */
export class RecordingReader {
  readonly #file: string;
  readonly #requests: OpenRequest[] = [];
  #head: Head | undefined;
  #line = 0;

  constructor(file: string) {
    this.#file = file;
  }

  add(line: string): void {
    this.#line++;
    if (line === '') return;
    const fields = this.#parse(line);
    if (this.#head === undefined) this.#head = this.#readHead(fields);
    else this.#read(fields, this.#head);
  }

  /** What the lines so far have. */
  end(): RecordingContent {
    if (this.#head === undefined) throw this.#error('a recording, whose first line describes the model', undefined);
    return { head: this.#head, requests: this.#requests };
  }

  #parse(line: string): Fields {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      throw this.#error('a JSON object', line);
    }
    if (!isRecord(value)) throw this.#error('a JSON object', value);
    return value;
  }

  #readHead(fields: Fields): Head {
    if (fields.recording !== 'lanewise') throw this.#error('a recording of lanewise', fields.recording ?? fields);
    if (fields.version !== VERSION) {
      const what = `expected version ${VERSION}, found ${text(fields.version)}; record again`;
      throw new FormatError('UnsupportedVersion', this.#file, what);
    }
    const { model, plan, load, states, source } = fields;
    if (source !== undefined) this.#check('source', source, isString, 'a string');
    this.#check('model', model, isRecord, 'an object');
    for (const key of ['name', 'type']) this.#check(`model.${key}`, (model as Fields)[key], isString, 'a string');
    for (const key of ['parameters', 'layers', 'dim', 'vocab'])
      this.#check(`model.${key}`, (model as Fields)[key], isCount, 'an integer of 0 or more');
    this.#check('model.weights', (model as Fields).weights, (value) => isMapOf(value, isSum), 'an object of checksums');
    this.#check('plan', plan, isRecord, 'a storage plan');
    this.#check('plan.weights', (plan as Fields).weights, (value) => isMapOf(value, isString), 'an object of storages');
    this.#check('load', load, isRecord, 'an object');
    for (const key of ['kvCache', 'backend', 'quantize'])
      this.#check(`load.${key}`, (load as Fields)[key], isString, 'a string');
    this.#check('load.contextLength', (load as Fields).contextLength, isCount, 'an integer of 0 or more');
    this.#check('states', states, (value) => isListOf(value, isString), 'an array of names');
    return fields as unknown as Head;
  }

  #read(fields: Fields, { model, states }: Head): void {
    const { request, prompt } = fields;
    const isId = (value: unknown): boolean => isCount(value) && (value as number) < model.vocab;
    const ids = `token ids from 0 to ${model.vocab - 1}`;
    if (prompt !== undefined) {
      this.#check(
        'request',
        request,
        (value) => value === this.#requests.length,
        `${this.#requests.length}, the next one`,
      );
      this.#check('prompt', prompt, (value) => isListOf(value, isId), ids);
      this.#check('options', fields.options, isRecord, 'an object');
      const { functions = [] } = fields;
      this.#check('functions', functions, (value) => isListOf(value, isString), 'an array of names');
      const begun = fields as unknown as RequestEntry;
      const open = { prompt: begun.prompt, options: begun.options, functions: functions as readonly string[] };
      this.#requests.push({ ...open, rows: new Map(), tokens: [], end: undefined });
      return;
    }
    const known = `the number of a request before, from 0 to ${this.#requests.length - 1}`;
    this.#check('request', request, (value) => isCount(value) && (value as number) < this.#requests.length, known);
    const open = this.#requests[request as number]!;
    if ('rows' in fields) {
      this.#check('at', fields.at, isCount, 'an integer of 0 or more');
      const isRow = (value: unknown): boolean =>
        isString(value) && value.length === DIGITS * states.length && /^[0-9a-f]*$/.test(value);
      this.#check('rows', fields.rows, (value) => isListOf(value, isRow), `rows of ${states.length} checksums`);
      const { at, rows } = fields as unknown as RowsEntry;
      for (const [i, row] of rows.entries()) open.rows.set(at + i, [...(open.rows.get(at + i) ?? []), row]);
    } else if ('token' in fields) {
      this.#check('token', fields.token, isId, ids);
      this.#check('logprob', fields.logprob, (value) => value === null || typeof value === 'number', 'a number');
      this.#check('logits', fields.logits, isSum, 'a checksum');
      open.tokens.push(fields as unknown as TokenEntry);
    } else {
      this.#check('end', fields.end, isString, 'the reason of the end');
      this.#check('text', fields.text, isString, 'a string');
      open.end = fields as unknown as EndEntry;
    }
  }

  #check(key: string, value: unknown, accepts: (value: unknown) => boolean, expected: string): void {
    if (!accepts(value)) throw this.#error(`${key} to be ${expected}`, value);
  }

  #error(expected: string, found: unknown): FormatError {
    const line = this.#line === 0 ? '' : `line ${this.#line}: `;
    return new FormatError('InvalidRecording', this.#file, `${line}expected ${expected}, found ${text(found)}`);
  }
}

/** Reads a whole recording. @param file its name, for errors @throws FormatError */
export function parseRecording(text: string, file: string): RecordingContent {
  const reader = new RecordingReader(file);
  for (const line of text.split('\n')) reader.add(line);
  return reader.end();
}

const text = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 80);
const isRecord = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isString = (value: unknown): value is string => typeof value === 'string';
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;
const isSum = (value: unknown): boolean => isString(value) && /^[0-9a-f]{8}$/.test(value);
const isListOf = (value: unknown, accepts: (item: unknown) => boolean): boolean =>
  Array.isArray(value) && value.every(accepts);
const isMapOf = (value: unknown, accepts: (item: unknown) => boolean): boolean =>
  isRecord(value) && Object.values(value).every(accepts);
