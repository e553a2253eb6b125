/** A scheduler whose drafters a test chooses, over a model of the tests. */
import { createWasmBackend } from '../../src/backend/wasm/create.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import type { Drafter } from '../../src/drafting/drafter.ts';
import { Drafts } from '../../src/drafting/drafts.ts';
import { openModel } from '../../src/engine/open.ts';
import { tokenizerBeside } from '../../src/engine/tokenizer.ts';
import { LanewiseError } from '../../src/errors.ts';
import { Evaluator } from '../../src/evaluate/evaluator.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { type Prompt, PromptEncoder } from '../../src/prompts/prompt.ts';
import type { GenerateResult } from '../../src/schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../../src/schedule/generation-options.ts';
import { Scheduler } from '../../src/schedule/scheduler.ts';

export interface Bench {
  readonly evaluator: Evaluator;
  /** A scheduler over the model. Its drafts seem to cost nothing, so that they are always made. */
  scheduler(drafters: readonly Drafter[], onWarning?: (text: string) => void): Scheduler;
  dispose(): Promise<void>;
}

/** Costs of no time but the constant one of a step. */
class FreeDrafts extends Drafts {
  override record(rows: number, drafted: number): void {
    super.record(rows, drafted, 1);
  }
}

export interface BenchOptions {
  readonly quantize?: string;
  readonly contextLength?: number;
  readonly cacheTokens?: number;
}

export async function openBench(path: string, options: BenchOptions = {}): Promise<Bench> {
  const { quantize = 'none', contextLength = 256, cacheTokens = 4096 } = options;
  const folder = nodeFolder(path);
  const files = await openModel(folder);
  const { headDiffers } = files;
  const description = buildModel(files.config, files.tensors, { policy: parsePolicy(quantize), headDiffers });
  const backend = await createWasmBackend({
    plan: description.plan,
    maxRows: 24,
    maxWanted: 24,
    cache: { contextLength, tokens: cacheTokens },
    tensor: (name) => files.tensor(name),
    host: nodeHost(),
    threads: 1,
  });
  const { vocab, contextLength: longestContext } = description.config;
  const tokenizer = await tokenizerBeside(folder);
  const format = new LanewiseError('NoChatTemplate', 'none');
  const tokens = { bosToken: undefined, eosToken: undefined };
  const chat = { tokens, format };
  const prompts = new PromptEncoder({ name: path, tokenizer, chat, vocab, contextLength, longestContext });
  const evaluator = new Evaluator({ name: path, description, backend });
  return {
    evaluator,
    scheduler(drafters, onWarning) {
      const drafts = new FreeDrafts({ drafters, vocab, onWarning, now: () => 0 });
      const context = { evaluator, prompts, eosTokenIds: new Set<number>(), guesses: drafters.length > 0 ? 16 : 0 };
      return new Scheduler(context, drafts, { maxQueue: 100, stepBudgetMs: 1e6 });
    },
    async dispose() {
      await evaluator.dispose();
      await files.close();
    },
  };
}

export function answer(scheduler: Scheduler, prompt: Prompt, options: GenerateOptions): Promise<GenerateResult> {
  const settings = validateGenerate(options);
  return new Promise((resolve) => {
    scheduler.submit({ prompt, settings }, (event) => {
      if (event.type === 'done') resolve(event);
    });
  });
}
