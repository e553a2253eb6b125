/** `lanewise eval perplexity` and `lanewise eval kl`. */
import type { Model } from '../engine/model.ts';
import type { LoadOptions } from '../engine/options.ts';
import { type Divergence, divergence, type WorstToken } from '../evaluation/divergence.ts';
import { type EvaluationOptions, type Perplexity, perplexity } from '../evaluation/perplexity.ts';
import type { Extent } from '../evaluation/windows.ts';
import { load } from '../node.ts';
import { renderTable } from '../report/aligned-table.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { readText } from './files.ts';
import { modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { type QuantizeFlag, quantizeOf } from './storage-flags.ts';
import { inFlags, type MachineFlags, machineOptions, numberOf, print, reportingLoad, UsageError } from './terminal.ts';

export interface TextFlags {
  text?: string;
  contextLength?: string;
  stride?: string;
  maxTokens?: string;
  json?: boolean;
}

export interface SideFlags extends MachineFlags, QuantizeFlag, ExplainFlag {
  json?: boolean;
  revision?: string;
  kvCache?: string;
  backend?: string;
}

export interface PairFlags extends SideFlags {
  quantizeB?: string;
  planB?: string;
  kvCacheB?: string;
  backendB?: string;
  threadsB?: string;
}

export async function perplexityCommand(positional: string | undefined, flags: SideFlags & TextFlags): Promise<number> {
  try {
    const text = await readText('--text', flags.text);
    await using model = await openSide(positional, flags, flags);
    const { found, seconds } = await timed((options) => perplexity(model, text, options), 'perplexity', flags);
    if (flags.json) await print(`${JSON.stringify(perplexityJson(model, found, seconds))}\n`);
    else await print(perplexityText(found, seconds));
    return 0;
  } catch (error) {
    throw inFlags(error);
  }
}

export interface DivergenceFlags extends PairFlags, TextFlags {
  worst?: string;
}

export async function divergenceCommand(
  a: string | undefined,
  b: string | undefined,
  flags: DivergenceFlags,
): Promise<number> {
  try {
    const text = await readText('--text', flags.text);
    const worst = numberOf('--worst', flags.worst);
    await using first = await openSide(a, flags, flags);
    await using second = await openSide(b ?? a, secondFlags(flags), flags);
    const measure = (options: EvaluationOptions) => divergence(first, second, text, { ...options, worst });
    const { found, seconds } = await timed(measure, 'kl', flags);
    if (flags.json) await print(`${JSON.stringify(divergenceJson(first, second, found, seconds))}\n`);
    else await print(divergenceText(found, seconds));
    return 0;
  } catch (error) {
    throw inFlags(error);
  }
}

/** The flags of B: those of both, unless B has its own. @throws UsageError */
export function secondFlags({ quantizeB, planB, ...flags }: PairFlags): SideFlags {
  if (quantizeB !== undefined && planB !== undefined) throw new UsageError('give --quantize-b or --plan-b, not both');
  return {
    ...flags,
    ...(quantizeB !== undefined && { quantize: quantizeB, plan: undefined }),
    ...(planB !== undefined && { quantize: undefined, plan: planB }),
    kvCache: flags.kvCacheB ?? flags.kvCache,
    backend: flags.backendB ?? flags.backend,
    threads: flags.threadsB ?? flags.threads,
  };
}

/** @throws what a load throws */
export async function openSide(
  positional: string | undefined,
  side: SideFlags,
  { contextLength }: Pick<TextFlags, 'contextLength'>,
  more: LoadOptions = {},
): Promise<Model> {
  const loading = reportingLoad({
    ...machineOptions(side),
    quantize: await quantizeOf(side),
    kvCache: side.kvCache as LoadOptions['kvCache'],
    backend: side.backend as LoadOptions['backend'],
    contextLength: numberOf('--context-length', contextLength),
    ...more,
  });
  const model = await load(await modelPath(positional, side), loading.options).finally(loading.end);
  sayExplanations(() => model.explain(), side);
  return model;
}

/** Runs an evaluation with progress, and measures it. */
async function timed<T>(
  measure: (options: EvaluationOptions) => Promise<T>,
  label: string,
  { stride, maxTokens }: TextFlags,
): Promise<{ found: T; seconds: number }> {
  const options = { stride: numberOf('--stride', stride), maxTokens: numberOf('--max-tokens', maxTokens) };
  const progress = createProgress(process.stderr, label, { unit: 'tokens' });
  const start = performance.now();
  try {
    const found = await measure({ ...options, onProgress: (done, total) => progress.update(done, total) });
    return { found, seconds: (performance.now() - start) / 1e3 };
  } finally {
    progress.end();
  }
}

const extentJson = ({ tokens, scored, windows, contextLength, stride }: Extent, seconds: number): object => ({
  tokens,
  scored,
  windows,
  context_length: contextLength,
  stride,
  seconds,
  tokens_per_second: scored / seconds,
});

const sideJson = (model: Model): object => ({
  model: model.name,
  quantize: model.quantize,
  threads: model.threads,
});

function perplexityJson(model: Model, found: Perplexity, seconds: number): object {
  return {
    ...sideJson(model),
    perplexity: found.perplexity,
    standard_error: found.standardError,
    loss: found.loss,
    loss_error: found.lossError,
    accuracy: found.accuracy,
    ...extentJson(found, seconds),
  };
}

/** `1023 tokens in 3 windows of 512, stride 256: 1.2 s, 850 tok/s` */
const extentLine = ({ scored, windows, contextLength, stride }: Extent, seconds: number): string =>
  `${scored} tokens scored, ${windows === 1 ? 'one window' : `${windows} windows, stride ${stride},`} of at most ${contextLength}: ${seconds.toFixed(1)} s, ${(scored / seconds).toFixed(0)} tok/s`;

const percent = (share: number): string => `${(share * 100).toFixed(1)} %`;

const perplexityText = (found: Perplexity, seconds: number): string => `\
perplexity   ${digits(found.perplexity)} +- ${digits(found.standardError)}
loss         ${digits(found.loss)} +- ${digits(found.lossError)} nats per token
first choice right for ${percent(found.accuracy)} of the tokens
${extentLine(found, seconds)}
`;

/** Four significant digits at least. */
export const digits = (value: number): string =>
  Number.isFinite(value) && value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential(2) : significant(value);

const significant = (value: number): string =>
  Math.abs(value) >= 1000 ? value.toFixed(1) : value.toFixed(Math.abs(value) >= 10 ? 3 : 4);

function divergenceJson(a: Model, b: Model, found: Divergence, seconds: number): object {
  return {
    a: { ...sideJson(a), perplexity: found.perplexityA },
    b: { ...sideJson(b), perplexity: found.perplexityB },
    kl: { ...found.kl, standardError: undefined, standard_error: found.kl.standardError },
    agreement: found.agreement,
    agreement_error: found.agreementError,
    loss_difference: found.lossDifference,
    loss_difference_error: found.lossDifferenceError,
    ...extentJson(found, seconds),
    worst: found.worst.map(({ a, b, ...token }) => ({
      ...token,
      a: { ...a, probabilityOfNext: undefined, probability_of_next: a.probabilityOfNext },
      b: { ...b, probabilityOfNext: undefined, probability_of_next: b.probabilityOfNext },
    })),
  };
}

function divergenceText(found: Divergence, seconds: number): string {
  const { kl, agreement, agreementError } = found;
  const rows = [
    ['KL(A || B), mean', `${digits(kl.mean)} +- ${digits(kl.standardError)}`],
    ['median', digits(kl.p50)],
    ['99 % of tokens below', digits(kl.p99)],
    ['largest', digits(kl.max)],
    ['same first choice', `${percent(agreement)} +- ${percent(agreementError)}`],
    ['perplexity of A', digits(found.perplexityA)],
    ['perplexity of B', digits(found.perplexityB)],
    ['loss of B - loss of A', `${digits(found.lossDifference)} +- ${digits(found.lossDifferenceError)}`],
  ];
  const table = renderTable([{ title: 'nats per token' }, { title: '', align: 'right' }], rows);
  return `${table}\n${extentLine(found, seconds)}\n${found.worst.length > 0 ? `\n${worstTable(found.worst)}` : ''}`;
}

const worstTable = (worst: readonly WorstToken[]): string =>
  renderTable(
    [
      { title: 'token', align: 'right' },
      { title: 'KL', align: 'right' },
      { title: 'after' },
      { title: 'came' },
      { title: "A's first choice" },
      { title: "B's first choice" },
    ],
    worst.map(({ position, kl, context, text, id, a, b }) => [
      `${position}`,
      digits(kl),
      quoted(context?.slice(-40)),
      quoted(text ?? `${id}`),
      ...[a, b].map((side) => `${quoted(side.text ?? `${side.id}`)} ${percent(side.probability)}`),
    ]),
  );

const quoted = (text: string | undefined): string => JSON.stringify(text ?? '');
