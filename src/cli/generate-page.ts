/** `lanewise generate --inspect FILE`: a page on which each token of a text tells how it was chosen. */
import { type GenerateEvent, type GenerateResult, type Model, writeAtomically } from '../node.ts';
import type { Table } from '../report/report.ts';
import { renderTokens } from '../report/token-page.ts';
import type { PageToken, TokenPage } from '../report/tokens.ts';

type TokenEvent = Extract<GenerateEvent, { type: 'token' }>;

/** Names of the stages in words. */
const stageNames = {
  constraint: 'constraint',
  logitsProcessor: 'logits processor',
  penalties: 'bias and penalties',
  temperature: 'temperature',
  topK: 'top-k',
  topP: 'top-p',
  minP: 'min-p',
} as const;

export async function writeTokenPage(file: string, page: TokenPage): Promise<void> {
  await writeAtomically(file, async (handle) => handle.writeFile(renderTokens(page)));
}

/** The data of the page. @param events of the tokens, generated with `inspect` */
export function tokenPage(
  model: Model,
  events: readonly TokenEvent[],
  result: GenerateResult,
  { command, sampling }: { readonly command: string; readonly sampling: string },
): TokenPage {
  const { promptTokenIds, timings, usage, seed, finishReason, stoppedBy } = result;
  const { steps } = timings;
  const label = (id: number): string => labelOf(model, id);
  // A forward that accepted drafts gave several tokens, and its time is that of all of them.
  const times = steps.length === events.length ? steps.map(({ ms }) => ms) : undefined;
  const tokens = events.map(({ id, text, logprob, inspection }, i): PageToken => {
    const { entropy, entropyAfter, rank, alternatives, stages } = inspection!;
    return {
      text,
      label: label(id),
      id,
      probability: Math.exp(logprob),
      rank,
      entropy,
      entropyAfter,
      ms: times?.[i] ?? null,
      alternatives: alternatives.map(({ removedBy, ...rest }) => ({
        ...rest,
        label: label(rest.id),
        removedBy: removedBy === undefined ? '' : stageNames[removedBy],
      })),
      stages: stages.map(({ stage, ...rest }) => ({ name: stageNames[stage], ...rest })),
    };
  });
  const ended = stoppedBy === undefined ? finishReason : `${finishReason} (${JSON.stringify(stoppedBy)})`;
  return {
    title: `How ${model.name.split(/[\\/]/).at(-1)} chose its words`,
    command,
    facts: [
      ['Model', `${model.name}, ${model.description.modelType}, weights ${model.quantize}`],
      ['Sampling', `${sampling}; seed ${seed}`],
      [
        'Tokens',
        `${usage.promptTokens} of the prompt (${usage.cachedTokens} cached), ${usage.completionTokens} generated`,
      ],
      ['Ended by', ended],
    ],
    prompt: model.tokenizer?.decode(promptTokenIds) ?? promptTokenIds.join(' '),
    times: timesTable(result),
    tokens,
  };
}

function timesTable({ timings: { steps }, usage }: GenerateResult): Table {
  const phases = ['embedding', 'layers', 'norm', 'projection', 'total'] as const;
  const row = (name: string, prefill: boolean, tokens: number): (string | number | null)[] => {
    const own = steps.filter((step) => step.prefill === prefill);
    return [
      name,
      own.length,
      tokens,
      ...phases.map((phase) => own.reduce((sum, step) => sum + (step.phases?.[phase] ?? 0), 0)),
    ];
  };
  return {
    columns: [
      { name: 'Phase' },
      { name: 'Forwards' },
      { name: 'Tokens' },
      ...phases.map((name) => ({ name: name[0]!.toUpperCase() + name.slice(1), unit: 'ms' })),
    ],
    rows: [row('prefill', true, usage.promptTokens), row('decode', false, Math.max(0, usage.completionTokens - 1))],
  };
}

/** A token with its spaces, line breaks and bytes made visible. */
function labelOf(model: Model, id: number): string {
  const { tokenizer } = model;
  const bytes = tokenizer?.bytes(id);
  if (bytes === undefined || bytes.length === 0) return tokenizer?.token(id) ?? `${id}`;
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.replaceAll(' ', '·').replaceAll('\n', '↵').replaceAll('\t', '⇥').replaceAll('\r', '␍');
  } catch {
    return [...bytes].map((byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`).join('');
  }
}
