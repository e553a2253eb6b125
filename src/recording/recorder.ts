/** Records requests: what they were asked, checksums of every layer's states and of the logits, and the tokens. */
import type { Results } from '../backend/backend.ts';
import { Checksum } from '../backend/checksum.ts';
import { type Entry, type Head, isHead } from './format.ts';

export interface RecordingOptions {
  /** What the user named the model, for the replay; empty: the embedded model. */
  readonly source?: string | undefined;
  /** Called by `end` after the last entry. */
  readonly close?: () => void;
}

/** Receives what is recorded of one model. */
export class Recording {
  readonly source: string | undefined;
  readonly #sink: (entry: Entry) => void;
  readonly #close: (() => void) | undefined;
  /** Number of the next request, and of the first one of the running engine. */
  #next = 0;
  #first = 0;
  #begun = false;
  #ended = false;

  constructor(sink: (entry: Entry) => void, { source, close }: RecordingOptions = {}) {
    this.#sink = sink;
    this.source = source;
    this.#close = close;
  }

  /** Adds an entry. An engine that replaces a lost one begins again with its model, and counts its requests from 0. */
  add(entry: Entry): void {
    if (this.#ended) return;
    if (isHead(entry)) {
      if (!this.#begun) this.#sink(entry);
      this.#begun = true;
      this.#first = this.#next;
      return;
    }
    const request = this.#first + entry.request;
    this.#next = Math.max(this.#next, request + 1);
    this.#sink({ ...entry, request });
  }

  /** Ends the recording; later entries are dropped. May be called twice. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#close?.();
  }
}

/** Options that decide which tokens come; of the others none does. */
const OPTIONS = [
  ...['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'presencePenalty', 'frequencyPenalty', 'seed'],
  ...['logitBias', 'stop', 'stopTokenIds', 'ignoreEos'],
] as const;
const FUNCTIONS = ['constraint', 'logitsProcessor'] as const;

/** Records the requests of one engine. */
export class RequestRecorder {
  readonly #recording: Recording;
  readonly #states: readonly string[];
  /** Numbers of the requests that have begun, by the scheduler's number. */
  readonly #numbers = new Map<number, number>();
  #count = 0;

  constructor(recording: Recording, head: Head) {
    this.#recording = recording;
    this.#states = head.states;
    recording.add(head);
  }

  /** @param id the scheduler's number of the request @param settings its options, checked */
  begin(id: number, prompt: readonly number[], settings: object): void {
    const given = settings as Readonly<Record<string, unknown>>;
    const request = this.#count++;
    this.#numbers.set(id, request);
    const functions = FUNCTIONS.filter((name) => given[name] !== undefined);
    const options = Object.fromEntries(OPTIONS.map((name) => [name, plain(given[name])]));
    this.#recording.add({ request, prompt, options, ...(functions.length > 0 && { functions }) });
  }

  /** Takes the checksums of all rows of a forward, before another one begins. @param parts its rows, in order */
  forward(results: Pick<Results, 'tap' | 'output'>, parts: readonly RecordedPart[]): ForwardRecord {
    const total = parts.reduce((sum, { count }) => sum + count, 0);
    const sums = Array.from({ length: total }, () => '');
    for (const name of this.#states) {
      const values = results.tap(name);
      const width = values.length / total;
      for (let row = 0; row < total; row++) sums[row] += sumOf(values.subarray(row * width, (row + 1) * width));
    }
    let first = 0;
    const firsts = parts.map(({ count }) => (first += count) - count);
    const requestOf = (part: number): number => this.#numbers.get(parts[part]!.id)!;
    return {
      rows: (part, from, to) => {
        const rows = sums.slice(firsts[part]! + from, firsts[part]! + to);
        this.#recording.add({ request: requestOf(part), at: parts[part]!.at + from, rows });
      },
      token: (part, { id: token, logprob }, wanted) => {
        const logits = sumOf(results.output(wanted));
        const finite = Number.isFinite(logprob) ? logprob : null;
        this.#recording.add({ request: requestOf(part), token, logprob: finite, logits });
      },
    };
  }

  end(
    id: number,
    { finishReason, text }: { readonly finishReason: string; readonly text: string },
    error: Error | undefined,
  ): void {
    const request = this.#numbers.get(id);
    this.#numbers.delete(id);
    if (request !== undefined) this.#recording.add({ request, end: error ? 'error' : finishReason, text });
  }
}

/** Rows of one request in a forward. */
export interface RecordedPart {
  /** The scheduler's number of the request. */
  readonly id: number;
  /** Position of its first row. */
  readonly at: number;
  readonly count: number;
}

/** Records results of one forward. */
export interface ForwardRecord {
  /** Rows `from` to `to - 1` of a part are part of its text. */
  rows(part: number, from: number, to: number): void;
  /** A token was sampled from the logits of a wanted row. */
  token(part: number, sample: { readonly id: number; readonly logprob: number }, wanted: number): void;
}

function sumOf({ buffer, byteOffset, byteLength }: Float32Array): string {
  return hexadecimal(new Checksum().add(new Uint8Array(buffer, byteOffset, byteLength)).value);
}

export const hexadecimal = (value: number): string => value.toString(16).padStart(8, '0');

/** A value of an option as JSON has it. */
function plain(value: unknown): unknown {
  if (value instanceof Set) return [...value];
  if (value instanceof Map) return [...value].map(([key, item]) => [key, item === -Infinity ? null : item]);
  return value;
}
