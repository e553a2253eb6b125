/** `lanewise replay`: runs a recording again and compares every state, logit and token. */
import type { Command } from 'commander';
import type { RecordingContent, ReplayDifference, ReplayedRequest, ReplayReport } from '../node.ts';
import { load, RecordingReader, replayRecording, type Tokenizer } from '../node.ts';
import { openLines } from './files.ts';
import { modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { inFlags, type MachineFlags, machineOptions, print, reportingLoad, UsageError } from './terminal.ts';

export interface ReplayFlags extends MachineFlags {
  revision?: string;
  json?: boolean;
}

export const addReplayArguments = (command: Command): Command =>
  command
    .argument('<file>', 'a recording of generate or chat')
    .argument('[model]', 'the model (default: the one that was recorded, by its name)')
    .option('--json', 'one JSON object');

/** @returns the exit code: 1 if something differs */
export async function replayCommand(file: string, model: string | undefined, flags: ReplayFlags): Promise<number> {
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort(new UsageError('interrupted')));
  const { signal } = interrupt;
  const progress = createProgress(process.stderr, 'replay', { unit: 'tokens' });
  try {
    const content = await readRecording(file);
    const { source, model: recorded } = content.head;
    if (model === undefined && source === undefined)
      throw new UsageError(`replay ${file}: name the model, ${recorded.name}: the recording does not say where it is`);
    const path = await modelPath(model ?? (source === '' ? undefined : source), flags);
    // A disposed model has none.
    let tokenizer: Tokenizer | undefined;
    const report = await replayRecording(content, {
      file,
      signal,
      onProgress: (done, total) => progress.update(done, total),
      async load(options) {
        const loading = reportingLoad({ ...machineOptions(flags), ...options, signal });
        const loaded = await load(path, loading.options).finally(loading.end);
        tokenizer = loaded.tokenizer;
        return loaded;
      },
    });
    progress.end();
    await print(flags.json ? `${JSON.stringify(jsonOf(content, report))}\n` : textOf(content, report, tokenizer));
    return report.equal ? 0 : 1;
  } catch (error) {
    if (signal.aborted) return 130;
    throw inFlags(error);
  } finally {
    progress.end();
  }
}

async function readRecording(file: string): Promise<RecordingContent> {
  const reader = new RecordingReader(file);
  for await (const line of await openLines('replay', file)) reader.add(line);
  return reader.end();
}

function textOf({ head, requests }: RecordingContent, report: ReplayReport, tokenizer: Tokenizer | undefined): string {
  const { model: recorded, load: how } = head;
  const lines = [
    `recorded with ${recorded.name}: ${recorded.type}, ${recorded.layers} layers, ${how.quantize}, kv cache ${how.kvCache}, ${how.threads} threads`,
    ...(report.weights.length > 0 ? [`weights that differ from the recording: ${listed(report.weights)}`] : []),
    ...report.requests.map((request, index) => `request ${index}: ${outcomeOf(request, tokenizer)}`),
  ];
  const cut = requests.filter(({ end }) => end === undefined).length;
  if (cut > 0) lines.push(`${cut} of ${requests.length} requests had not ended when the recording did`);
  return `${lines.join('\n')}\n`;
}

const MOST_NAMES = 8;
const listed = (names: readonly string[]): string =>
  names.length > MOST_NAMES
    ? `${names.slice(0, MOST_NAMES).join(', ')} and ${names.length - MOST_NAMES} more`
    : names.join(', ');

function outcomeOf(request: ReplayedRequest, tokenizer: Tokenizer | undefined): string {
  const { promptTokens, tokens, states, logits, difference, skipped } = request;
  const size = `${promptTokens} prompt tokens, ${tokens} tokens`;
  if (skipped !== undefined) return `${size}: not replayed, because ${skipped}`;
  if (difference === undefined) return `${size}: equal (${states} states of layers, ${logits} rows of logits)`;
  return `${size}: differs first ${placeOf(difference, tokenizer)}`;
}

function placeOf(
  { what, position, token, found, place, prompt }: ReplayDifference,
  tokenizer: Tokenizer | undefined,
): string {
  const shown = (id: number): string => {
    const text = tokenizer?.decode([id]);
    return text === undefined ? `id ${id}` : `${JSON.stringify(text)}, id ${id}`;
  };
  const where = `at token ${position} ${prompt ? 'of the prompt' : 'of the text'} (${shown(token)})`;
  if (what === 'state') return `${where}, in ${place}`;
  if (what === 'logits') return `${where}, in its logits: all layers are equal`;
  if (what === 'logprob') return `${where}, in its log-probability: the logits are equal`;
  return `${where}: sampled ${shown(found!)} from the same logits`;
}

function jsonOf({ head, requests }: RecordingContent, { equal, weights, requests: results }: ReplayReport): object {
  return {
    equal,
    model: head.model.name,
    weights_differ: weights,
    requests: results.map(({ promptTokens, tokens, states, logits, difference, skipped }, index) => ({
      prompt_tokens: promptTokens,
      tokens,
      states,
      logits,
      complete: requests[index]!.end !== undefined,
      skipped: skipped ?? null,
      difference: difference ?? null,
    })),
  };
}
