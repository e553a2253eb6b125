/**
 * Runs the Lanewise of a folder in its own process, to be measured in turns with this one. The process loads a model, then
 * answers every message with the times of one turn.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { SequenceHandle } from '../engine/engine.ts';
import type { Model } from '../engine/model.ts';
import type { LoadOptions } from '../engine/options.ts';
import { LanewiseError, OptionError } from '../errors.ts';
import type { load } from '../node.ts';
import { runTurn, type Turn, type Work } from './turn.ts';

interface SideOptions {
  /** Path of the module to import. */
  readonly library: string;
  readonly model: string;
  readonly options: LoadOptions;
  readonly work: Work;
}

type Answer = { readonly turn: Turn } | { readonly error: string } | { readonly ready: true };

/** This Lanewise. */
export const ownLibrary = new URL(`../node${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url).href;

/** The Lanewise in a checkout or a built package. @throws OptionError */
export function libraryIn(folder: string): string {
  const files = ['src/node.ts', 'dist/node.js'].map((file) => join(resolve(folder), file));
  const file = files.find((name) => existsSync(name));
  if (file === undefined)
    throw new OptionError(
      'against',
      'a file of saved times, or a folder of Lanewise (src/node.ts or dist/node.js)',
      folder,
    );
  return pathToFileURL(file).href;
}

export class Side {
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#process = child;
  }

  /** Resolves when the model is loaded. @throws LanewiseError with the error of the process */
  static async start(options: SideOptions): Promise<Side> {
    const side = new Side(
      fork(fileURLToPath(import.meta.url), [JSON.stringify(options)], {
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      }),
    );
    try {
      await side.#answer(options.library);
      return side;
    } catch (error) {
      side.stop();
      throw error;
    }
  }

  async turn(): Promise<Turn> {
    const answer = this.#answer('a benchmark');
    this.#process.send({});
    return (await answer).turn!;
  }

  stop(): void {
    this.#process.kill();
  }

  #answer(where: string): Promise<{ turn?: Turn }> {
    return new Promise((resolve, reject) => {
      const fail = (what: string): void => reject(new LanewiseError('BenchFailed', `${where}: ${what}`));
      const ended = (code: number | null): void => fail(`its process ended with code ${code}`);
      this.#process.once('exit', ended);
      this.#process.once('message', (message) => {
        this.#process.off('exit', ended);
        const answer = message as Answer;
        if ('error' in answer) fail(answer.error);
        else resolve('turn' in answer ? answer : {});
      });
    });
  }
}

async function serve(send: (answer: Answer) => void): Promise<void> {
  const { library, model: path, options, work } = JSON.parse(process.argv[2]!) as SideOptions;
  const trying = async (make: () => Promise<Answer>): Promise<void> =>
    send(await make().catch((error: Error) => ({ error: error.message.split('\n')[0]! })));
  process.on('disconnect', () => process.exit());
  await trying(async () => {
    const other = (await import(library)) as { load: typeof load };
    const model = disposing(await loadInline(other.load, path, options));
    process.on('message', () => void trying(async () => ({ turn: await runTurn(model, work, false) })));
    return { ready: true };
  });
}

/** Versions without hosted engines refuse the option, and load inline. */
async function loadInline(given: typeof load, path: string, options: SideOptions['options']): ReturnType<typeof load> {
  try {
    return await given(path, { ...options, inline: true });
  } catch (error) {
    if ((error as { option?: string }).option !== 'inline') throw error;
    return given(path, options);
  }
}

/** Sequences of versions without shared caches end with `release`. */
function disposing(model: Model): Model {
  const make = model.sequence.bind(model);
  model.sequence = (expected) => {
    const sequence = make(expected) as SequenceHandle & { release?(): void };
    if (!sequence[Symbol.dispose]) Object.defineProperty(sequence, Symbol.dispose, { value: sequence.release });
    return sequence;
  };
  return model;
}

// Runs only in a forked process, not when imported.
if (process.send !== undefined && process.argv[1] === fileURLToPath(import.meta.url))
  await serve((answer) => void process.send!(answer));
