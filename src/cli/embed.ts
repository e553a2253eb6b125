/** `lanewise embed`: embeds texts, one per line, and prints vectors, one per line. */

import type { Pooling } from '../embedding/pooling.ts';
import { type Embedding, numbersOf } from '../engine/embed-types.ts';
import type { Encoder } from '../engine/encoder.ts';
import { loadEncoder, type Trace } from '../node.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { openLines } from './files.ts';
import { type LoadFlags, loadOptions } from './generate.ts';
import { modelPath } from './models.ts';
import { inFlags, print, reportingLoad, UsageError } from './terminal.ts';
import { type TraceFlags, traced } from './trace.ts';

export interface EmbedFlags extends LoadFlags, TraceFlags, ExplainFlag {
  revision?: string;
  text?: string[];
  file?: string;
  pooling?: string;
  normalize?: boolean;
  promptName?: string;
  prompt?: string;
  truncate?: boolean;
  json?: boolean;
}

/** Texts per call of the encoder. */
const TEXTS_AT_ONCE = 256;

/** @returns the exit code */
export function embedCommand(given: string, flags: EmbedFlags): Promise<number> {
  return traced(flags, (trace) => run(given, flags, trace));
}

async function run(given: string, flags: EmbedFlags, trace: Trace | undefined): Promise<number> {
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort(new UsageError('interrupted')));
  const { signal } = interrupt;
  // Otherwise the command would go on waiting for standard input.
  signal.addEventListener('abort', () => process.stdin.destroy());
  try {
    const groups = inGroups(await readTexts(flags));
    await using encoder = await openEncoder(given, flags, { signal, trace });
    sayExplanations(() => encoder.explain(), flags);
    const { normalize, truncate, prompt, promptName } = flags;
    const pooling = flags.pooling as Pooling | undefined;
    for await (const texts of groups) {
      const embeddings = await encoder.embed(texts, { pooling, normalize, truncate, prompt, promptName, signal });
      await print(embeddings.map((result, i) => lineOf(texts[i]!, result, flags.json ?? false)).join(''));
    }
    return 0;
  } catch (error) {
    if (signal.aborted) return 130;
    throw inFlags(error);
  }
}

async function openEncoder(
  given: string,
  flags: EmbedFlags,
  { signal, trace }: { readonly signal: AbortSignal; readonly trace: Trace | undefined },
): Promise<Encoder> {
  const path = await modelPath(given, flags);
  const loading = reportingLoad({ ...(await loadOptions(flags, signal)), trace });
  try {
    return await loadEncoder(path, loading.options);
  } finally {
    loading.end();
  }
}

/** @throws UsageError */
async function readTexts({ text, file }: EmbedFlags): Promise<Iterable<string> | AsyncIterable<string>> {
  if (text !== undefined && file !== undefined) throw new UsageError('give --text or --file, not both');
  if (text !== undefined) return text;
  if (file === undefined && process.stdin.isTTY)
    throw new UsageError('nothing to embed: use --text, --file or pipe texts in, one per line');
  return withoutEnds(await openLines('--file', file));
}

/** Removes line ends. Empty lines are texts too; the line end of the last line does not begin another one. */
async function* withoutEnds(lines: AsyncIterable<string>): AsyncGenerator<string> {
  let before: string | undefined;
  for await (const line of lines) {
    if (before !== undefined) yield before;
    before = line.replace(/\r$/, '');
  }
  if (before) yield before;
}

async function* inGroups(texts: Iterable<string> | AsyncIterable<string>): AsyncGenerator<string[]> {
  let group: string[] = [];
  for await (const text of texts) {
    group.push(text);
    if (group.length < TEXTS_AT_ONCE) continue;
    yield group;
    group = [];
  }
  if (group.length) yield group;
}

function lineOf(text: string, { embedding, tokens, truncated }: Embedding, json: boolean): string {
  const values = numbersOf(embedding);
  return `${JSON.stringify(json ? { text, tokens, truncated: truncated || undefined, embedding: values } : values)}\n`;
}
