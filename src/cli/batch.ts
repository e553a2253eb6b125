/** `lanewise generate --batch-file`: prints results in the order of the lines, as soon as the earlier ones are printed. */

import type { Model } from '../engine/model.ts';
import { LanewiseError } from '../node.ts';
import type { GenerateResult } from '../schedule/events.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';
import type { GivenPrompt } from './prompts.ts';
import { inFlags, print, reportError, say } from './terminal.ts';

interface Printing {
  readonly file: string;
  /** Converts a result to the object that `--json` prints. */
  readonly json?: ((result: GenerateResult) => object) | undefined;
}

/** Result or error of one line. */
type Outcome = GenerateResult | LanewiseError;

/** @returns the exit code: 1 if a line failed, 130 after Ctrl-C */
export async function runBatch(
  model: Model,
  given: readonly GivenPrompt[],
  options: GenerateOptions,
  printing: Printing,
): Promise<number> {
  const start = performance.now();
  const printer = new Printer(given, printing);
  const sound = given.flatMap((one, index) => (one.error ? [] : [{ one, index }]));
  for (const [index, { error }] of given.entries()) if (error) await printer.put(index, error);
  const prompts = sound.map(({ one: { prompt, options: own = {} } }) => ({ prompt: prompt!, options: own }));
  for await (const event of model.generateStream(prompts, { ...options, throwOnAbort: false })) {
    if (event.type === 'done') await printer.put(sound[event.index]!.index, event.error ?? event);
  }
  const aborted = options.signal?.aborted === true;
  const seconds = (performance.now() - start) / 1000;
  const failed = printer.failed ? `, ${printer.failed} failed` : '';
  if (aborted) say(`interrupted: ${printer.done} of ${given.length} prompts done${failed}`);
  else
    say(
      `${given.length} prompts in ${seconds.toFixed(2)} s (${(given.length / seconds).toFixed(2)} prompts/s)${failed}`,
    );
  if (aborted) return 130;
  return printer.failed > 0 ? 1 : 0;
}

/** Prints the errors of a batch file in which no line is valid. @returns the exit code */
export async function refuseBatch(given: readonly GivenPrompt[], printing: Printing): Promise<number> {
  const printer = new Printer(given, printing);
  for (const [index, { error }] of given.entries()) await printer.put(index, error!);
  return 1;
}

/** Prints results in order: holds back each result until all earlier ones are printed. */
class Printer {
  readonly #given: readonly GivenPrompt[];
  readonly #printing: Printing;
  readonly #waiting = new Map<number, Outcome>();
  #next = 0;
  done = 0;
  failed = 0;

  constructor(given: readonly GivenPrompt[], printing: Printing) {
    this.#given = given;
    this.#printing = printing;
  }

  async put(index: number, outcome: Outcome): Promise<void> {
    this.#waiting.set(index, outcome);
    for (let ready = this.#waiting.get(this.#next); ready; ready = this.#waiting.get(this.#next)) {
      this.#waiting.delete(this.#next);
      await this.#print(this.#next++, ready);
    }
  }

  async #print(index: number, outcome: Outcome): Promise<void> {
    const { line = index + 1 } = this.#given[index]!;
    const { file, json } = this.#printing;
    if (outcome instanceof LanewiseError) {
      this.failed++;
      const shown = inFlags(outcome) as LanewiseError;
      const place = `--batch-file ${file}, line ${line}`;
      const message = shown.message.startsWith(place) ? shown.message : `${place}: ${shown.message}`;
      reportError(new LanewiseError(shown.code, message));
      const error = { code: outcome.code, message: message.slice(place.length + 2) };
      if (json) await print(`${JSON.stringify({ line, finish_reason: 'error', error })}\n`);
      return;
    }
    // Lines that had not begun when Ctrl-C was pressed are not printed.
    if (outcome.finishReason === 'aborted' && outcome.tokenIds.length === 0) return;
    if (outcome.finishReason === 'aborted') say(`line ${line}: interrupted after ${outcome.tokenIds.length} tokens`);
    else this.done++;
    await print(json ? `${JSON.stringify({ line, ...json(outcome) })}\n` : `[${index + 1}] ${outcome.text}\n`);
  }
}
