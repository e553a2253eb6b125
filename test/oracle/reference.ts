/** What a request must come to: the same one alone, on an empty cache, in one thread, without guesses. */
import type { LanewiseError } from '../../src/errors.ts';
import type { Prompt } from '../../src/prompts/prompt.ts';
import type { GenerateResult } from '../../src/schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../../src/schedule/generation-options.ts';
import { ShownText } from '../../src/schedule/shown-text.ts';
import { constraints, type PlannedOptions, samplings, stops } from './schedule.ts';
import { alone, type Golden, makeStage } from './stage.ts';

/** Bits of a token. */
export type TokenBits = readonly number[];

export interface Answer {
  readonly result: GenerateResult;
  /** Of each token: id, log-probability, and those of the most probable ones. */
  readonly tokens: readonly TokenBits[];
}

export const optionsOf = ({ sampling, stop, constraint, ...rest }: PlannedOptions): GenerateOptions => ({
  ...samplings[sampling],
  ...stops[stop],
  ...constraints[constraint],
  ...rest,
});

export interface TokenEvent {
  readonly id: number;
  readonly logprob: number;
  readonly top?: readonly { readonly id: number; readonly logprob: number }[] | undefined;
}

export const bitsOf = ({ id, logprob, top }: TokenEvent): TokenBits => [
  id,
  logprob,
  ...(top ?? []).flatMap((choice) => [choice.id, choice.logprob]),
];

export class References {
  readonly #golden: Golden;
  readonly #answers = new Map<string, Promise<Answer>>();

  constructor(golden: Golden) {
    this.#golden = golden;
  }

  get size(): number {
    return this.#answers.size;
  }

  answer(prompt: Prompt, options: PlannedOptions, extra: GenerateOptions): Promise<Answer> {
    const key = JSON.stringify([prompt, options, extra]);
    let answer = this.#answers.get(key);
    if (!answer) {
      answer = this.#run(prompt, { ...optionsOf(options), ...extra });
      this.#answers.set(key, answer);
    }
    return answer;
  }

  #run(prompt: Prompt, options: GenerateOptions): Promise<Answer> {
    const { engine } = makeStage(this.#golden, alone(this.#golden));
    const { vocab } = this.#golden.description.config;
    const settings = validateGenerate(options, { vocab });
    return new Promise((resolve) => {
      const tokens: TokenBits[] = [];
      engine.submit({ prompt, settings }, (event) => {
        if (event.type === 'token') tokens.push(bitsOf(event));
        if (event.type === 'done') resolve({ result: event, tokens });
      });
    });
  }

  /** The text of a reply that was ended after so many tokens. */
  textOf(prompt: Prompt, { result }: Answer, count: number, options: PlannedOptions): string {
    const { stop } = validateGenerate(optionsOf(options));
    const continues = typeof prompt === 'string' || !('messages' in prompt);
    const shown = new ShownText(this.#golden.prompts.files.tokenizer, continues ? result.promptTokenIds : [], {
      stop,
      hideSpecial: !options.ignoreEos,
    });
    let text = '';
    for (const id of result.tokenIds.slice(0, count)) text += shown.push(id).text;
    return text + shown.end().text;
  }
}

export const codeOf = (error: unknown): string | undefined => (error as LanewiseError | undefined)?.code;
