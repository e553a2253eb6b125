/**
 * What guessing ahead brings: a model with its draft model and without, in turns, on texts that it writes itself. The embedded
 * model in F32 is drafted by itself in Q4_0; with LANEWISE_REAL (a folder with a GGUF file) or --model, that one widened to F32
 * is drafted by the file as it is. Then each is drafted by weights in a wrong order, which guess nothing right: that must not
 * cost anything. Texts are compared token by token.
 *
 *   node bench/drafts.ts [--model FILE.gguf] [--turns 9] [--tokens 160] [--temperatures 0,0.8] [--sequences 1,4]
 *                        [--drafts good,wrong] [--speculate 16] [--threads N] [--json]
 */
import { cp, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { renderTable } from '../src/cli/table.ts';
import { nodeFolder } from '../src/formats/adapters/node.ts';
import { openCheckpoint } from '../src/formats/checkpoint.ts';
import { openGguf } from '../src/formats/gguf.ts';
import { embeddedModel, type GenerateResult, load, type Model } from '../src/node.ts';
import { weightType } from '../src/quant/ggml.ts';
import { argumentsOf, countOf, countsOf, namesOf, refuse } from './arguments.ts';

const { values: flags } = argumentsOf({
  options: {
    model: { type: 'string' },
    turns: { type: 'string', default: '9' },
    tokens: { type: 'string', default: '160' },
    temperatures: { type: 'string', default: '0,0.8' },
    sequences: { type: 'string', default: '1,4' },
    drafts: { type: 'string', default: 'good,wrong' },
    speculate: { type: 'string' },
    threads: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const turns = countOf('--turns', flags.turns);
const maxTokens = countOf('--tokens', flags.tokens);
const sequenceCounts = countsOf('--sequences', flags.sequences);
const kinds = namesOf('--drafts', flags.drafts, ['good', 'wrong'] as const);
const threads = flags.threads === undefined ? undefined : countOf('--threads', flags.threads);
const speculate = flags.speculate === undefined ? undefined : countOf('--speculate', flags.speculate);
const temperatures = flags.temperatures.split(',').map(Number);
if (temperatures.some((value) => !(value >= 0))) refuse('--temperatures takes numbers >= 0');

interface Row {
  readonly model: string;
  readonly draft: string;
  readonly temperature: number;
  readonly sequences: number;
  /** Tokens per second, medians of the turns, and the median of each turn's ratio. */
  readonly without: number;
  readonly with: number;
  readonly ratio: number;
  readonly drafted: number;
  readonly accepted: number;
  readonly sameTexts: boolean;
}

const prompts = [
  'Once upon a time',
  'One day, a girl named Lily',
  'The old king said to his son:',
  'In the forest there lived a',
  'A dog and a cat',
  'It was raining when',
  'The little boat',
  'Every morning the baker',
];

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

async function measure(model: Model, draft: string, temperature: number, sequences: number): Promise<Row> {
  const rates = { without: [] as number[], with: [] as number[] };
  let [drafted, accepted, sameTexts] = [0, 0, true];
  for (let turn = 0; turn < turns; turn++) {
    const batch = Array.from({ length: sequences }, (_, i) => prompts[(turn + i) % prompts.length]!);
    const options = { temperature, seed: turn, maxTokens, ignoreEos: true };
    const texts: Record<string, string> = {};
    for (const side of turn % 2 ? (['with', 'without'] as const) : (['without', 'with'] as const)) {
      const start = performance.now();
      const results: GenerateResult[] = await model.generateBatch(batch, {
        ...options,
        speculate: side === 'with' ? speculate : 0,
      });
      const ms = performance.now() - start;
      rates[side].push((results.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0) / ms) * 1000);
      texts[side] = JSON.stringify(results.map(({ tokenIds, text }) => [tokenIds, text]));
      for (const { usage, error } of results) {
        if (error) throw error;
        drafted += usage.draftTokens ?? 0;
        accepted += usage.acceptedDraftTokens ?? 0;
      }
    }
    sameTexts &&= texts.with === texts.without;
  }
  return {
    model: path.basename(model.name),
    draft,
    temperature,
    sequences,
    without: median(rates.without),
    with: median(rates.with),
    ratio: median(rates.with.map((rate, i) => rate / rates.without[i]!)),
    drafted,
    accepted,
    sameTexts,
  };
}

/** A copy of a model whose matrices are shifted by half: numbers of the same kind, and nonsense. */
async function shifted(source: string): Promise<{ path: string; remove(): Promise<void> }> {
  const scratch = await mkdtemp(path.join(tmpdir(), 'lanewise-drafts-'));
  const copy = path.join(scratch, path.basename(source));
  await cp(source, copy, { recursive: true });
  const isGguf = source.endsWith('.gguf');
  const folder = isGguf ? path.dirname(copy) : copy;
  const files = await (isGguf ? openGguf(nodeFolder(folder), path.basename(copy)) : openCheckpoint(nodeFolder(folder)));
  for (const tensor of files.tensors.values()) {
    if (tensor.shape.length < 2) continue;
    const bytes = new Uint8Array(tensor.byteLength);
    await tensor.readInto(0, bytes);
    const unit = weightType(tensor.dtype.toLowerCase())?.bytes ?? 4;
    const half = Math.floor(bytes.length / unit / 2) * unit;
    const file = await open(path.join(folder, tensor.file), 'r+');
    await file.write(bytes, half, bytes.length - half, tensor.offset);
    await file.write(bytes, 0, half, tensor.offset + bytes.length - half);
    await file.close();
  }
  await files.close();
  return { path: copy, remove: () => rm(scratch, { recursive: true }) };
}

async function realModel(): Promise<string | undefined> {
  if (flags.model) return flags.model;
  const folder = process.env.LANEWISE_REAL;
  if (!folder) return undefined;
  const name = (await readdir(folder)).find((file) => file.endsWith('.gguf'));
  return name === undefined
    ? refuse(`LANEWISE_REAL must have a .gguf file in it, found none`)
    : path.join(folder, name);
}

const real = await realModel();
if (!real) console.error('the embedded model only: set LANEWISE_REAL to a folder with a GGUF file, or give --model');
const cases = [
  { source: embeddedModel, draft: 'q4_0' as string | undefined },
  ...(real ? [{ source: real, draft: undefined }] : []),
].filter(({ source }) => !flags.model || source === real);
const rows: Row[] = [];
for (const { source, draft: quantize } of cases) {
  for (const kind of kinds) {
    const wrong = kind === 'wrong' ? await shifted(source) : undefined;
    const draft = { path: wrong?.path ?? source, quantize };
    const options = { quantize: 'f32', draft, threads, contextLength: 512, inline: true };
    await using model = await load(source, options);
    const name = `${kind === 'wrong' ? 'wrong weights' : 'itself'}, ${quantize ?? 'as in the file'}`;
    for (const temperature of temperatures) {
      for (const sequences of sequenceCounts) {
        const row = await measure(model, name, temperature, sequences);
        const { ratio, accepted, drafted } = row;
        console.error(
          `${row.model}, ${name}, temperature ${temperature}, ${sequences} at once: ${ratio.toFixed(2)}x, ${accepted} of ${drafted} right`,
        );
        rows.push(row);
      }
    }
    await wrong?.remove();
  }
}
if (flags.json) console.log(JSON.stringify(rows));
else {
  const right = (title: string) => ({ title, align: 'right' as const });
  console.log(
    renderTable(
      [
        { title: 'Model in F32' },
        { title: 'Draft' },
        ...['Temperature', 'Texts', 'Alone', 'Drafted', 'Ratio', 'Right', 'Same text'].map(right),
      ],
      rows.map((row) => [
        row.model,
        row.draft,
        `${row.temperature}`,
        `${row.sequences}`,
        `${row.without.toFixed(1)} tokens/s`,
        `${row.with.toFixed(1)} tokens/s`,
        `${row.ratio.toFixed(2)}x`,
        `${row.accepted} of ${row.drafted}`,
        row.sameTexts ? 'yes' : 'NO',
      ]),
    ),
  );
}
if (!rows.every(({ sameTexts }) => sameTexts)) process.exitCode = 1;
