/** Keeps measurements in a file, so that an interrupted run continues. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeAtomically } from '../../formats/adapters/node.ts';
import type { Store } from '../measures.ts';

const FORMAT = 'lanewise-tune';
const VERSION = 1;
/** Milliseconds between two writes. */
const INTERVAL = 2000;

/** What measurements depend on; with another key they are made anew. */
export interface StoreKeys {
  /** Of errors and losses: content of the model, text, kernels. */
  readonly model: string;
  /** Of times: machine, kernels, threads. */
  readonly machine: string;
}

type Section = keyof StoreKeys;
type Values = Record<string, number>;

const sectionOf = (name: string): Section => (/^(row|chunk) /.test(name) ? 'machine' : 'model');

export class FileStore implements Store {
  readonly #file: string;
  readonly #keys: StoreKeys;
  readonly #values: Record<Section, Values>;
  #changed = false;
  #written = performance.now();
  #writing: Promise<void> = Promise.resolve();

  private constructor(file: string, keys: StoreKeys, values: Record<Section, Values>) {
    this.#file = file;
    this.#keys = keys;
    this.#values = values;
  }

  /** @param fresh whether to ignore what is there. A file that cannot be used is ignored too. */
  static async open(file: string, keys: StoreKeys, fresh = false): Promise<FileStore> {
    const text = fresh ? undefined : await readFile(file, 'utf8').catch(() => undefined);
    const found = text === undefined ? undefined : parsed(text);
    const values = (section: Section): Values =>
      found?.[section]?.key === keys[section] ? numbersOf(found[section].values) : {};
    return new FileStore(file, keys, { model: values('model'), machine: values('machine') });
  }

  /** Number of measurements. */
  get size(): number {
    return Object.keys(this.#values.model).length + Object.keys(this.#values.machine).length;
  }

  get(name: string): number | undefined {
    const values = this.#values[sectionOf(name)];
    return Object.hasOwn(values, name) ? values[name] : undefined;
  }

  set(name: string, value: number): void {
    this.#values[sectionOf(name)][name] = value;
    this.#changed = true;
    if (performance.now() - this.#written < INTERVAL) return;
    this.#written = performance.now();
    // An error is reported by `close`.
    void this.save().catch(() => {});
  }

  /** Writes what is new. @throws system errors */
  save(): Promise<void> {
    this.#writing = this.#writing
      .catch(() => {})
      .then(async () => {
        if (!this.#changed) return;
        this.#changed = false;
        const section = (name: Section): object => ({ key: this.#keys[name], values: encoded(this.#values[name]) });
        const content = { format: FORMAT, version: VERSION, model: section('model'), machine: section('machine') };
        await writeAtomically(this.#file, async (handle) => handle.writeFile(`${JSON.stringify(content, null, 1)}\n`));
      });
    return this.#writing;
  }
}

type Content = Record<Section, { readonly key: unknown; readonly values: unknown }>;

function parsed(text: string): Content | undefined {
  try {
    const json = JSON.parse(text) as Content & { format?: unknown; version?: unknown };
    return json?.format === FORMAT && json.version === VERSION ? json : undefined;
  } catch {
    return undefined;
  }
}

/** JSON has no infinity. */
const encoded = (values: Values): Record<string, number | string> =>
  Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, Number.isFinite(value) ? value : `${value}`]),
  );

function numbersOf(values: unknown): Values {
  if (typeof values !== 'object' || values === null) return {};
  return Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => typeof value === 'number' || value === 'Infinity')
      .map(([name, value]) => [name, Number(value)]),
  );
}

/** SHA-256 of files, one after the other. */
export async function hashFiles(folder: string, files: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of files) {
    hash.update(`${file}\n`);
    for await (const piece of createReadStream(join(folder, file), { highWaterMark: 2 ** 22 }))
      hash.update(piece as Buffer);
  }
  return hash.digest('hex');
}

export const hashText = (text: string): string => createHash('sha256').update(text).digest('hex');
