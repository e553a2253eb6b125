/** Lanewise as one side of compare.ts, loaded through the public API; see side.ts for the tasks. */

import { load, type SequenceHandle, type StepLogits } from '../../src/node.ts';
import { Sampler } from '../../src/sampling/sampler.ts';
import { validateSampling } from '../../src/sampling/sampling-options.ts';
import { BATCH_PROMPT, type Introduction, type LanewiseOptions, ROOM, type Task, type Way } from './side.ts';

const {
  model: path,
  promptTokens,
  decodeTokens,
  sequences: batchSequences,
  threads,
  kvCache,
} = JSON.parse(process.argv[2]!) as LanewiseOptions;
const contextLength = promptTokens + 2 * decodeTokens + ROOM;
const model = await load(path, { threads, contextLength, ...(kvCache === undefined ? {} : { kvCache }) });
const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));

/** The sequences being decoded, and the next token of each. */
let sequences: SequenceHandle[] = [];
let next: number[] = [];

function begin(count: number): void {
  for (const sequence of sequences) sequence.dispose();
  sequences = Array.from({ length: count }, () => model.sequence());
  next = sequences.map(() => 301);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

async function evaluate(sequence: SequenceHandle, tokens: readonly number[]): Promise<void> {
  for (let at = 0; at < tokens.length; at += model.maxRows)
    await model.step([{ sequence, tokens: tokens.slice(at, at + model.maxRows), wanted: false }]);
}

/** Decodes one token of every sequence. */
async function round(way: Way): Promise<void> {
  const wanted = way === 'generate';
  const logits = await model.step(sequences.map((sequence, n) => ({ sequence, tokens: [next[n]!], wanted })));
  if (wanted) next = logits.map(greedy);
}

async function perform(asked: Task): Promise<number[]> {
  switch (asked.task) {
    case 'prompt':
      begin(1);
      return [await timed(() => evaluate(sequences[0]!, prompt))];
    case 'batch': {
      begin(batchSequences);
      const start = prompt.slice(0, BATCH_PROMPT);
      for (const [n, sequence] of sequences.entries())
        await evaluate(
          sequence,
          start.map((id) => id + n),
        );
      return [];
    }
    case 'decode': {
      const times: number[] = [];
      for (let i = 0; i < asked.rounds; i++) times.push(await timed(() => round(asked.way)));
      return times;
    }
  }
}

const sampler = new Sampler(validateSampling({ temperature: 0 }));
const greedy = ({ logits, summary }: StepLogits): number => sampler.sample(logits, summary).id;

/** Work per token: linear layers, and keys and values in the middle of the decoded text. */
function introduction(): Introduction {
  const { plan } = model.description;
  const output = plan.weights.find(({ role }) => role === 'output')!;
  const { bytes } = output.shares === undefined ? output : plan.weights[output.shares]!;
  return {
    bytesPerToken: {
      evaluate: model.decodeBytes(promptTokens + decodeTokens / 2) - bytes,
      generate: model.decodeBytes(promptTokens + 1.5 * decodeTokens),
    },
    operationsPerToken: plan.weights
      .filter(({ linear, role }) => linear && role !== 'output')
      .reduce((sum, { shape }) => sum + 2 * shape[0]! * shape[1]!, 0),
  };
}

process.on('message', async (task: Task) => process.send!(await perform(task)));
process.on('disconnect', () => process.exit());
process.send!(introduction());
