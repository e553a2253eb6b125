/** Compares a replay with its recording, entry by entry, and finds the first difference of each request. */
import { FormatError } from '../errors.ts';
import {
  type Entry,
  type Head,
  isHead,
  type RecordedRequest,
  type RecordingContent,
  type RowsEntry,
  stateOf,
  type TokenEntry,
} from './format.ts';

/** The first difference of a request. */
export interface ReplayDifference {
  /** What differs: the states after a layer, the logits, the token that was sampled or its log-probability. */
  readonly what: 'state' | 'logits' | 'token' | 'logprob';
  /** Position in the sequence, from 0. */
  readonly position: number;
  /** Token at this position. For `token`: as recorded. */
  readonly token: number;
  /** For `token`: as replayed. */
  readonly found?: number;
  /** Part of the model whose result differs: `embedding`, `layer[2]`, `projection` or `sampling`. */
  readonly place: string;
  /** Whether the token is of the prompt. */
  readonly prompt: boolean;
}

export interface ReplayedRequest {
  readonly promptTokens: number;
  readonly tokens: number;
  /** Numbers of states and rows of logits that were compared. */
  readonly states: number;
  readonly logits: number;
  /** Undefined: everything is equal. */
  readonly difference: ReplayDifference | undefined;
  /** Why the request was not replayed. */
  readonly skipped?: string | undefined;
}

/** Weights of which so large a part differs that the model is another one. */
const OTHER = 0.5;

export class Comparison {
  readonly #file: string;
  readonly #content: RecordingContent;
  readonly #onDifference: () => void;
  /** Index of the recorded request that is replayed. */
  #index = -1;
  #tokens = 0;
  #states = 0;
  #logits = 0;
  #difference: ReplayDifference | undefined;
  /** The error of a replay with another model. */
  refused: FormatError | undefined;
  /** Names of the weights that differ from the recording. */
  weights: readonly string[] = [];

  /** @param onDifference called at the first difference of a request: there is no need to go on */
  constructor(content: RecordingContent, file: string, onDifference: () => void) {
    this.#content = content;
    this.#file = file;
    this.#onDifference = onDifference;
  }

  /** The request that comes next in the replay. */
  next(index: number): void {
    this.#index = index;
    this.#tokens = 0;
    this.#states = 0;
    this.#logits = 0;
    this.#difference = undefined;
  }

  /** The outcome of the request. */
  result(): ReplayedRequest {
    const { prompt, tokens } = this.#request;
    const counts = { promptTokens: prompt.length, tokens: tokens.length };
    return { ...counts, states: this.#states, logits: this.#logits, difference: this.#difference };
  }

  /** Takes an entry of the replay. Does not throw: it is called by the engine. */
  readonly take = (entry: Entry): void => {
    if (isHead(entry)) this.refused = this.#compareModel(entry);
    else if (this.#difference !== undefined) return;
    else if ('rows' in entry) this.#compareRows(entry);
    else if ('token' in entry) this.#compareToken(entry);
  };

  get #request(): RecordedRequest {
    return this.#content.requests[this.#index]!;
  }

  #compareModel({ model, plan }: Head): FormatError | undefined {
    const { head } = this.#content;
    const other = (expected: string, found: string): FormatError =>
      new FormatError('OtherModel', this.#file, `recorded with ${expected}, the model given is ${found}`);
    for (const key of ['type', 'parameters', 'layers', 'dim', 'vocab'] as const)
      if (model[key] !== head.model[key])
        return other(`${head.model.name} (${key} ${head.model[key]})`, `${model.name} (${key} ${model[key]})`);
    const names = Object.keys(head.model.weights);
    const missing = names.find((name) => !Object.hasOwn(model.weights, name));
    if (missing !== undefined) return other(`the weight ${missing}`, 'without it');
    this.weights = names.filter((name) => model.weights[name] !== head.model.weights[name]);
    if (this.weights.length > OTHER * names.length)
      return other(head.model.name, `another one: ${this.weights.length} of ${names.length} weights differ`);
    for (const [name, storage] of Object.entries(head.plan.weights))
      if (plan.weights[name] !== storage) return other(`${name} as ${storage}`, `with it as ${plan.weights[name]}`);
    return undefined;
  }

  #compareRows({ at, rows }: RowsEntry): void {
    const { head } = this.#content;
    for (const [i, row] of rows.entries()) {
      const recorded = this.#request.rows.get(at + i);
      if (!recorded) continue;
      if (recorded.includes(row)) {
        this.#states += head.states.length;
        continue;
      }
      // Of several recorded rows of a position the one that agrees longest.
      const firsts = recorded.map((one) => head.states.findIndex((_, n) => stateOf(one, n) !== stateOf(row, n)));
      this.#differ('state', at + i, placeOf(head.states[Math.max(...firsts)]!));
      return;
    }
  }

  #compareToken({ token, logits, logprob }: TokenEntry): void {
    const { tokens, prompt } = this.#request;
    const recorded = tokens[this.#tokens];
    if (!recorded) return;
    // The logits are those of the token before.
    const position = prompt.length + this.#tokens - 1;
    this.#tokens++;
    if (recorded.logits !== logits) {
      this.#differ('logits', position, 'projection');
      return;
    }
    this.#logits++;
    if (recorded.token !== token) this.#differ('token', position + 1, 'sampling', token);
    else if (recorded.logprob !== logprob) this.#differ('logprob', position + 1, 'sampling');
  }

  #differ(what: ReplayDifference['what'], position: number, place: string, found?: number): void {
    const { prompt, tokens } = this.#request;
    const ofPrompt = position < prompt.length;
    const token = ofPrompt ? prompt[position]! : tokens[position - prompt.length]!.token;
    this.#difference = { what, position, token, place, prompt: ofPrompt, ...(found !== undefined && { found }) };
    this.#onDifference();
  }
}

/** The part of the model that computes a state: `hidden.0` is read by the first layer, `hidden.n` comes from layer n - 1. */
function placeOf(state: string): string {
  const index = Number(/^hidden\.(\d+)$/.exec(state)?.[1] ?? Number.NaN);
  if (Number.isNaN(index)) return state;
  return index === 0 ? 'embedding' : `layer[${index - 1}]`;
}
