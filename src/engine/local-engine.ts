/** An engine in the calling thread: an evaluator and its scheduler. */
import { Drafts } from '../drafting/drafts.ts';
import { PromptLookup } from '../drafting/lookup.ts';
import type { ModelDrafter } from '../drafting/model-drafter.ts';
import { FormatError, LanewiseError, OptionError } from '../errors.ts';
import type { CacheFileContent } from '../evaluate/cache-file.ts';
import type { Evaluator } from '../evaluate/evaluator.ts';
import type { Sequence } from '../evaluate/sequence.ts';
import type { NamedFiles } from '../formats/bytes.ts';
import { tapBuffer } from '../plan/taps.ts';
import type { PromptEncoder } from '../prompts/prompt.ts';
import type { RequestRecorder } from '../recording/recorder.ts';
import type { GenerateEvent } from '../schedule/events.ts';
import type { Request } from '../schedule/run.ts';
import { Scheduler, type SchedulerOptions, type SchedulerStats, type Ticket } from '../schedule/scheduler.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type {
  Engine,
  EngineInfo,
  NamedRows,
  RowResults,
  RowWishes,
  SequenceHandle,
  StepLogits,
  StepOptions,
  StepRows,
} from './engine.ts';
import { scoreRows } from './score-rows.ts';

export interface LocalEngineParts {
  readonly info: Pick<EngineInfo, 'quantize' | 'eosTokenIds' | 'samplingDefaults' | 'contextLength' | 'explanations'>;
  readonly evaluator: Evaluator;
  readonly prompts: PromptEncoder;
  readonly scheduling: SchedulerOptions;
  /** File access for saved caches. */
  readonly files: NamedFiles | undefined;
  /** Makes drafts; disposed by the engine. */
  readonly draft?: ModelDrafter | undefined;
  readonly onWarning?: ((text: string) => void) | undefined;
  readonly recorder?: RequestRecorder | undefined;
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

  constructor({ info, evaluator, prompts, scheduling, draft, onWarning, files, recorder }: LocalEngineParts) {
    const { name, description, backend, maxRows, maxWanted } = evaluator;
    const { loadTimes, threads, vectorBits } = backend;
    this.info = { ...info, name, description, loadTimes, threads, vectorBits, maxRows, maxWanted };
    this.prompts = prompts;
    this.#evaluator = evaluator;
    const drafters = [new PromptLookup(), ...(draft ? [draft] : [])];
    this.#draft = draft;
    this.#drafts = new Drafts({ drafters, vocab: evaluator.vocab, onWarning });
    const context = { evaluator, prompts, eosTokenIds: info.eosTokenIds, guesses: draft ? MODEL_GUESSES : 0, recorder };
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

  async evaluate(
    sequence: SequenceHandle,
    tokens: readonly number[],
    { logits = false, taps = [], next }: RowWishes,
  ): Promise<RowResults> {
    const { plan } = this.info.description;
    const { vocab } = this.#evaluator;
    if (next && !(next.length === tokens.length && next.every((id) => id >= 0 && id < vocab)))
      throw new OptionError('next', `a token id below ${vocab} for each of the ${tokens.length} rows`, next);
    const kept = taps.map((name) => ({ ...tapBuffer(plan, name), name }));
    const wanted = logits || next !== undefined || kept.some(({ rows }) => rows === 'wanted') ? 'all' : false;
    return this.#evaluator.exclusive(async () => {
      const part = { sequence: (sequence as LocalSequence)?.sequence, tokens, wanted } as const;
      const { results } = await this.#evaluator.forward([part]);
      const tensors: NamedRows = new Map();
      if (logits) {
        const values = new Float32Array(tokens.length * vocab);
        for (const row of tokens.keys()) values.set(results.output(row), row * vocab);
        tensors.set('logits', { shape: [tokens.length, vocab], values });
      }
      for (const { name, width } of kept) {
        const values = results.tap(name);
        tensors.set(name, { shape: [values.length / width, width], values });
      }
      return { tensors, ...(next && { scores: scoreRows(results, next) }) };
    });
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
