/** An engine in the calling thread: an evaluator and its scheduler. */
import { Drafts } from '../drafting/drafts.ts';
import { PromptLookup } from '../drafting/lookup.ts';
import type { ModelDrafter } from '../drafting/model-drafter.ts';
import { FormatError, LanewiseError, OptionError } from '../errors.ts';
import type { CacheFileContent } from '../evaluate/cache-file.ts';
import type { Evaluator } from '../evaluate/evaluator.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import type { NamedFiles } from '../formats/bytes.ts';
import { checkLength } from '../prompts/limits.ts';
import type { PromptEncoder } from '../prompts/prompt.ts';
import type { GenerateEvent } from '../schedule/events.ts';
import type { Request } from '../schedule/run.ts';
import { Scheduler, type SchedulerOptions, type SchedulerStats, type Ticket } from '../schedule/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Engine, EngineInfo, NamedRows, SequenceHandle, StepLogits, StepOptions, StepRows } from './engine.ts';

export interface LocalEngineParts {
  readonly info: Pick<EngineInfo, 'quantize' | 'eosTokenIds' | 'samplingDefaults' | 'contextLength'>;
  readonly evaluator: Evaluator;
  readonly prompts: PromptEncoder;
  readonly scheduling: SchedulerOptions;
  /** File access for saved caches. */
  readonly files: NamedFiles | undefined;
  /** Makes drafts; disposed by the engine. */
  readonly draft?: ModelDrafter | undefined;
  readonly onWarning?: ((text: string) => void) | undefined;
}

/** Default of `speculate` with a draft model. */
const MODEL_GUESSES = 16;

class LocalSequence implements SequenceHandle {
  readonly sequence: Sequence;
  readonly #evaluator: Evaluator;
  /** Logits of the last wanted rows, overwritten by the next step of this sequence. */
  logits = new Float32Array(0);

  constructor(evaluator: Evaluator, expected: number) {
    this.sequence = evaluator.cache.sequence({ expected });
    this.#evaluator = evaluator;
  }

  get length(): number {
    return this.sequence.length;
  }

  reserve(positions: number): Promise<void> {
    // Not during a forward, as memory may grow and pages be copied.
    return this.#evaluator.exclusive(() => this.sequence.reserve(positions));
  }

  truncate(length: number): void {
    this.sequence.truncate(length);
  }

  dispose(): void {
    this.sequence.release();
    this.logits = new Float32Array(0);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export class LocalEngine implements Engine {
  readonly info: EngineInfo;
  readonly prompts: PromptEncoder;
  readonly #evaluator: Evaluator;
  readonly #scheduler: Scheduler;
  readonly #drafts: Drafts;
  readonly #draft: ModelDrafter | undefined;
  readonly #named: NamedFiles | undefined;
  #disposed: Promise<void> | undefined;

  constructor({ info, evaluator, prompts, scheduling, draft, onWarning, files }: LocalEngineParts) {
    const { name, description, backend, maxRows, maxWanted } = evaluator;
    const { loadTimes, threads, vectorBits } = backend;
    this.info = { ...info, name, description, loadTimes, threads, vectorBits, maxRows, maxWanted };
    this.prompts = prompts;
    this.#evaluator = evaluator;
    const drafters = [new PromptLookup(), ...(draft ? [draft] : [])];
    this.#draft = draft;
    this.#drafts = new Drafts({ drafters, vocab: evaluator.vocab, onWarning });
    const context = { evaluator, prompts, eosTokenIds: info.eosTokenIds, guesses: draft ? MODEL_GUESSES : 0 };
    this.#scheduler = new Scheduler(context, this.#drafts, scheduling);
    this.#named = files;
  }

  get tokenizer(): Tokenizer | undefined {
    return this.prompts.files.tokenizer;
  }

  submit(request: Request, listener: (event: GenerateEvent) => void): Ticket {
    return this.#scheduler.submit(request, listener);
  }

  sequence(expected: number): LocalSequence {
    return new LocalSequence(this.#evaluator, expected);
  }

  async step(parts: readonly StepRows[], { timing, onReport }: StepOptions): Promise<StepLogits[]> {
    if (!Array.isArray(parts)) throw new OptionError('parts', 'an array of at least one part', parts);
    return this.#evaluator.exclusive(async () => {
      const rows = parts.map((part) => ({ ...part, sequence: (part?.sequence as LocalSequence)?.sequence }));
      const { results, report } = await this.#evaluator.forward(rows, timing);
      onReport?.(report);
      let row = 0;
      return parts.flatMap(({ sequence, tokens, wanted }) => {
        const handle = sequence as LocalSequence;
        const count = wanted === 'all' ? tokens.length : wanted ? 1 : 0;
        const { vocab } = this.#evaluator;
        if (handle.logits.length < count * vocab) handle.logits = new Float32Array(count * vocab);
        return Array.from({ length: count }, (_, i) => {
          const logits = handle.logits.subarray(i * vocab, (i + 1) * vocab);
          logits.set(results.output(row));
          return { logits, summary: results.summary(row++) };
        });
      });
    });
  }

  async forward(tokenIds: readonly number[]): Promise<NamedRows> {
    const ids = this.prompts.encode({ tokenIds });
    const { contextLength, longestContext } = this.prompts.files;
    checkLength(ids.length, contextLength, longestContext);
    const { plan, config } = this.info.description;
    const taps = plan.steps.flatMap((step) =>
      step.op === 'tap' ? [[step.name, plan.buffers[step.out]!.width] as const] : [],
    );
    const out: NamedRows = new Map(
      [...taps, ['logits', config.vocab] as const].map(([name, width]) => [
        name,
        { shape: [ids.length, width], values: new Float32Array(ids.length * width) },
      ]),
    );
    const sequence = this.sequence(ids.length);
    try {
      const chunk = Math.min(this.info.maxRows, this.info.maxWanted);
      for (let start = 0; start < ids.length; start += chunk) {
        const tokens = ids.slice(start, start + chunk);
        await this.#evaluator.exclusive(async () => {
          const part = { sequence: sequence.sequence, tokens, wanted: 'all' as const };
          const { results } = await this.#evaluator.forward([part]);
          for (const [i] of tokens.entries())
            out.get('logits')!.values.set(results.output(i), (start + i) * config.vocab);
          for (const [name, width] of taps) out.get(name)!.values.set(results.tap(name), start * width);
        });
      }
    } finally {
      sequence.dispose();
    }
    return out;
  }

  async saveCache(file: string): Promise<CacheFileContent> {
    return this.#files.write(file, (append) => this.#evaluator.saveCache(append));
  }

  async restoreCache(file: string): Promise<CacheFileContent> {
    const source = await this.#files.open(file);
    if (!source) throw new FormatError('NotAFile', file, 'expected a saved cache, found nothing there');
    try {
      return await this.#evaluator.restoreCache(source);
    } finally {
      await source.dispose();
    }
  }

  get #files(): NamedFiles {
    if (this.#named) return this.#named;
    throw new LanewiseError('NoFiles', 'caches are saved to files, which a browser does not have');
  }

  memory(): ReturnType<Engine['memory']> {
    const own = this.#evaluator.backend.memory();
    const draft = this.#draft?.memory();
    if (!draft) return own;
    return {
      weights: own.weights + draft.weights,
      activations: own.activations + draft.activations,
      cache: own.cache + draft.cache,
    };
  }

  stats(): SchedulerStats {
    return this.#scheduler.stats();
  }

  dispose(): Promise<void> {
    this.#disposed ??= (async () => {
      this.#scheduler.dispose(new LanewiseError('Disposed', `${this.info.name} has been disposed`));
      await this.#evaluator.dispose();
      await this.#drafts.dispose();
      this.prompts.dispose();
    })();
    return this.#disposed;
  }
}
