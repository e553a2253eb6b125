/**
 * Generates greedily and hashes the bits of tokens and log-probabilities. The same code runs under Node and in browsers.
 */
export interface Outcome {
  readonly text: string;
  /** SHA-256 of the ids and of the log-probabilities' bits. */
  readonly hash: string;
  readonly threads: number;
  readonly warnings: readonly string[];
}

interface TokenEvent {
  readonly type: string;
  readonly id?: number;
  readonly logprob?: number;
  readonly text?: string;
}

/** The part of a model that is used, of any build of the library. */
interface Speaker {
  readonly threads: number;
  generate(prompt: string, options: object): AsyncIterable<TokenEvent>;
  dispose(): Promise<void>;
}

/** @param load calls `load` of the library's entry with a source; its argument receives warnings */
export async function outcomeOf(load: (onWarning: (text: string) => void) => Promise<Speaker>): Promise<Outcome> {
  const warnings: string[] = [];
  const model = await load((text) => warnings.push(text));
  const numbers: number[] = [];
  let text = '';
  for await (const event of model.generate('Once upon a time', { temperature: 0, maxTokens: 40 })) {
    if (event.type === 'token') numbers.push(event.id!, event.logprob!);
    if (event.type === 'done') text = event.text!;
  }
  const { threads } = model;
  await model.dispose();
  const digest = await crypto.subtle.digest('SHA-256', Float64Array.from(numbers));
  const hash = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return { text, hash, threads, warnings };
}
