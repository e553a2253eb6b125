/** `lanewise generate`: text on stdout, everything else on stderr. */

import type { Model } from '../engine/model.ts';
import type { LoadOptions } from '../engine/options.ts';
import { describeSampling } from '../engine/sampling-defaults.ts';
import { load } from '../node.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { GenerateEvent, GenerateResult } from '../schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../schedule/generation-options.ts';
import { refuseBatch, runBatch } from './batch.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { checkWritable } from './files.ts';
import { tokenPage, writeTokenPage } from './generate-page.ts';
import { generateOptions, type SamplingFlags } from './generation-flags.ts';
import { linearLayers, loadLine, modelLine, modelPath, storageLine } from './models.ts';
import { createProgress } from './progress.ts';
import { type PromptFlags, readPrompts } from './prompts.ts';
import { type RecordFlags, recorded } from './record.ts';
import { renderStepTable } from './step-table.ts';
import { type QuantizeFlag, quantizeOf } from './storage-flags.ts';
import {
  bytesOf,
  commandLine,
  inFlags,
  type MachineFlags,
  machineOptions,
  numberOf,
  print,
  reportingLoad,
  say,
  UsageError,
} from './terminal.ts';
import { type TraceFlags, traced } from './trace.ts';

/** Options as commander returns them. */
export interface GenerateFlags extends SamplingFlags, LoadFlags, PromptFlags, TraceFlags, RecordFlags, ExplainFlag {
  safetensors?: string;
  revision?: string;
  stream?: boolean;
  json?: boolean;
  timings?: boolean;
  /** A file for the page of tokens. */
  inspect?: string;
}

export interface LoadFlags extends MachineFlags, QuantizeFlag {
  contextLength?: string;
  backend?: string;
  kvCache?: string;
  cacheTokens?: string;
  cacheMemory?: string;
  draft?: string;
  draftQuantize?: string;
}

/** @returns the exit code */
export async function generateCommand(positional: string | undefined, flags: GenerateFlags): Promise<number> {
  try {
    return await traced(flags, (trace) =>
      recorded(flags, positional, (record) => run(positional, flags, { trace, record })),
    );
  } catch (error) {
    throw inFlags(error);
  }
}

async function run(
  positional: string | undefined,
  flags: GenerateFlags,
  observers: Pick<LoadOptions, 'trace' | 'record'>,
): Promise<number> {
  const options = generateOptions(flags);
  validateGenerate(options);
  const prompts = await readPrompts(flags);
  const batch = flags.batchFile !== undefined;
  const printing = { file: flags.batchFile ?? '' };
  if (batch && flags.inspect !== undefined)
    throw new UsageError('--inspect shows one text: leave it out with --batch-file');
  if (flags.inspect !== undefined) await checkWritable(`--inspect ${flags.inspect}`, flags.inspect);
  if (batch && flags.stream === true) throw new UsageError('--stream is not supported with --batch-file');
  if (prompts.every(({ error }) => error))
    return refuseBatch(prompts, { ...printing, json: flags.json ? () => ({}) : undefined });
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort(new UsageError('interrupted')));
  const path = await modelPath(positional, flags);
  const draft = await draftOptions(flags);
  const loading = reportingLoad({ ...(await loadOptions(flags, interrupt.signal)), ...draft, ...observers });
  let model: Model;
  try {
    model = await load(path, loading.options);
  } catch (error) {
    if (interrupt.signal.aborted) return 130;
    throw error;
  } finally {
    loading.end();
  }
  await using held = model;
  const generation: GenerateOptions = {
    ...options,
    timing: (flags.timings ?? false) || flags.inspect !== undefined,
    inspect: flags.inspect !== undefined,
    signal: interrupt.signal,
  };
  if (flags.timings)
    for (const line of [
      modelLine(held.description),
      storageLine(held.description),
      loadLine(held),
      `sampling: ${describeSampling(held.samplingDefaults)}`,
    ])
      say(line);
  sayExplanations(() => held.explain(options), flags);
  if (batch) {
    const json = flags.json ? (result: GenerateResult) => jsonOf(held, result) : undefined;
    return await runBatch(held, prompts, generation, { ...printing, json });
  }
  const { prompt, options: own } = prompts[0]!;
  return await runOne(held, prompt!, { ...generation, ...own }, flags);
}

export async function loadOptions(flags: LoadFlags, signal: AbortSignal): Promise<LoadOptions> {
  return {
    ...machineOptions(flags),
    quantize: await quantizeOf(flags),
    contextLength: numberOf('--context-length', flags.contextLength),
    backend: flags.backend as 'wasm' | undefined,
    kvCache: flags.kvCache as 'f32' | undefined,
    cacheTokens: numberOf('--cache-tokens', flags.cacheTokens),
    cacheMemory: bytesOf('--cache-memory', flags.cacheMemory),
    signal,
  };
}

/** The draft model, fetched where it is one of the hub. */
export async function draftOptions({ draft, draftQuantize: quantize }: LoadFlags): Promise<Pick<LoadOptions, 'draft'>> {
  if (draft === undefined && quantize === undefined) return {};
  return { draft: { ...(draft !== undefined && { path: await modelPath(draft) }), quantize } };
}

async function runOne(model: Model, prompt: Prompt, options: GenerateOptions, flags: GenerateFlags): Promise<number> {
  const streams = !flags.json && flags.stream !== false;
  const progress = createProgress(process.stderr, 'prefill', { unit: 'tokens' });
  const tokens: Extract<GenerateEvent, { type: 'token' }>[] = [];
  let code = 0;
  try {
    for await (const event of model.generate(prompt, { ...options, throwOnAbort: false })) {
      if (event.type === 'prefill') progress.update(event.done, event.total);
      if (event.type === 'token' || event.type === 'text') {
        progress.end();
        if (streams) await print(event.text);
        if (event.type === 'token' && flags.inspect !== undefined) tokens.push(event);
      }
      if (event.type === 'done') {
        if (flags.json) await print(`${JSON.stringify(jsonOf(model, event))}\n`);
        else await print(streams ? '\n' : `${event.text}\n`);
        if (flags.timings) reportTimings(event);
        if (flags.inspect !== undefined) await reportTokens(flags.inspect, model, tokens, event, options);
        if (event.finishReason === 'aborted') code = 130;
      }
    }
    return code;
  } finally {
    progress.end();
  }
}

/** Options of sampling that a command line can set. */
const samplingNames = [
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
] as const;

/** Writes the page of --inspect. */
async function reportTokens(
  file: string,
  model: Model,
  tokens: readonly Extract<GenerateEvent, { type: 'token' }>[],
  result: GenerateResult,
  options: GenerateOptions,
): Promise<void> {
  const given = samplingNames.flatMap((name) => (options[name] === undefined ? [] : [`${name} ${options[name]}`]));
  const sampling = [...given, `where not set: ${describeSampling(model.samplingDefaults)}`].join('; ');
  await writeTokenPage(file, tokenPage(model, tokens, result, { command: commandLine(), sampling }));
  say(`wrote ${file}: ${tokens.length} tokens`);
}

/** @param most largest number of rows in the table; the rates are those of all steps */
export function reportTimings({ timings, usage }: GenerateResult, most = Number.POSITIVE_INFINITY): void {
  const rows = timings.steps
    .slice(0, most)
    .flatMap(({ prefill, phases }, index) => (phases ? [{ step: index + 1, prefill, phases }] : []));
  say(renderStepTable(rows));
  const steps = timings.steps.length - 1;
  const decoded = usage.completionTokens - 1;
  const rate = (count: number, ms: number): string =>
    ms > 0 ? `${((count / ms) * 1000).toFixed(1)} tokens/s` : 'none';
  say(
    `prefill ${usage.promptTokens} tokens: ${rate(usage.promptTokens, timings.prefillMs)}; decode ${steps} steps: ${rate(decoded, timings.decodeMs)}`,
  );
  if (usage.draftTokens !== undefined)
    say(`${usage.acceptedDraftTokens} of ${usage.draftTokens} draft tokens accepted`);
}

function jsonOf(model: Model, result: GenerateResult): object {
  const layers = linearLayers(model.description);
  const memory = model.memory();
  const { timings } = result;
  return {
    prompt_token_ids: result.promptTokenIds,
    token_ids: result.tokenIds,
    text: result.text,
    finish_reason: result.finishReason,
    stopped_by: result.stoppedBy,
    usage: {
      prompt_tokens: result.usage.promptTokens,
      completion_tokens: result.usage.completionTokens,
      cached_tokens: result.usage.cachedTokens,
      dropped_messages: result.usage.droppedMessages,
      draft_tokens: result.usage.draftTokens,
      accepted_draft_tokens: result.usage.acceptedDraftTokens,
    },
    timings: {
      prefill_ms: timings.prefillMs,
      decode_ms: timings.decodeMs,
      steps: timings.steps.map(({ prefill, ms, phases }) => ({ prefill, ms, phases })),
    },
    model: {
      name: model.name,
      type: model.description.modelType,
      parameters: model.description.parameters,
      threads: model.threads,
      vector_bits: model.vectorBits,
      weight_bytes: memory.weights,
      activation_bytes: memory.activations,
      cache_bytes: memory.cache,
      seed: result.seed,
    },
    plan: {
      quantize: model.quantize,
      linear_layers: layers.length,
      quantized: layers.filter(({ quantized }) => quantized).length,
    },
  };
}
