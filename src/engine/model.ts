/** A loaded model: generates text and evaluates tokens. Disposing it frees all its resources. */
import type { Explanation } from '../backend/explanation.ts';
import type { CacheFileContent } from '../evaluate/cache-file.ts';
import { decodeBytes } from '../plan/memory.ts';
import type { ChatFormat } from '../prompts/chat.ts';
import { checkPrompt } from '../prompts/limits.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { GenerateResult } from '../schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../schedule/generation-options.ts';
import { type BatchEvent, type BatchPrompt, type BatchResult, generateBatch, generateStream } from './batch.ts';
import { Conversation } from './conversation.ts';
import type { Engine, SequenceHandle, StepLogits, StepOptions, StepRows } from './engine.ts';
import { explainOptions } from './explain.ts';
import { Generation } from './generation.ts';
import { Loaded } from './loaded.ts';
import {
  checkForward,
  type ForwardOptions,
  type ForwardRows,
  forwardRows,
  type RowOptions,
  scoreTokens,
  type TokenScores,
} from './rows.ts';
import { generationRules, type SamplingDefaults } from './sampling-defaults.ts';

export class Model extends Loaded<Engine> {
  get eosTokenIds(): ReadonlySet<number> {
    return this.engine.info.eosTokenIds;
  }

  /** Defaults of the sampling options, and the model's file that sets them. */
  get samplingDefaults(): SamplingDefaults {
    return this.engine.info.samplingDefaults;
  }

  /**
   * Every decision of the load, and of a generation with these options, with its origin and reason, under stable keys
   * (docs/doctor.md).
   */
  override explain(options: GenerateOptions = {}): readonly Explanation[] {
    return [...super.explain(), ...explainOptions(options, this.samplingDefaults)];
  }

  /** Largest number of rows of a forward; longer prompts are computed in chunks. */
  get maxRows(): number {
    return this.engine.info.maxRows;
  }

  /** Largest number of requests that run at once; others wait. */
  get maxSequences(): number {
    return this.engine.info.maxWanted;
  }

  /** The model's chat template. @throws LanewiseError NoChatTemplate, TemplateError */
  get chatFormat(): ChatFormat {
    return this.engine.prompts.chatFormat;
  }

  /**
   * Writes the full blocks of 64 tokens in the cache to a file, while requests go on. The file has the tokens, keys and
   * values of users' texts: protect it like these texts.
   */
  async saveCache(file: string): Promise<CacheFileContent> {
    this.alive();
    return this.engine.saveCache(file);
  }

  /**
   * Adds the blocks of a file written by `saveCache` with the same model. Prompts that begin in the same way then reuse
   * them, with the same bits. @throws FormatError if the file is damaged or of another model; the cache is then
   * unchanged
   */
  async restoreCache(file: string): Promise<CacheFileContent> {
    this.alive();
    return this.engine.restoreCache(file);
  }

  /**
   * Bytes of matrices and KV cache that a decode step at `position`, or some steps of its plan, must read from memory.
   */
  decodeBytes(position: number, steps = this.description.plan.steps): number {
    return decodeBytes(this.description.plan, position, steps);
  }

  /**
   * Generates one answer: read its events, its text or its result.
   * @throws OptionError for options and prompt, immediately
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    this.alive();
    const settings = validateGenerate(options, { ...generationRules(this.engine.info), single: true });
    checkPrompt(prompt);
    return new Generation((listener) => this.engine.submit({ prompt, settings }, listener), settings);
  }

  /** Generates one answer and resolves with its result. @throws OptionError; LanewiseError; the signal's reason */
  async complete(prompt: Prompt, options: GenerateOptions = {}): Promise<GenerateResult> {
    return this.generate(prompt, options).result;
  }

  /**
   * Generates for many prompts in shared forwards. Results are in the order of the prompts, each with the bits of the
   * prompt alone. An error of one prompt is the `error` of its result. @throws OptionError for the options; the
   * signal's reason
   */
  async generateBatch(prompts: readonly BatchPrompt[], options: GenerateOptions = {}): Promise<BatchResult[]> {
    this.alive();
    return generateBatch(this.engine, prompts, options);
  }

  /** Events of many prompts in shared forwards, as they occur, each with the `index` of its prompt. @throws OptionError */
  generateStream(
    prompts: readonly BatchPrompt[],
    options: GenerateOptions = {},
  ): AsyncGenerator<BatchEvent, void, undefined> {
    this.alive();
    return generateStream(this.engine, prompts, options);
  }

  /** Starts a conversation, which has one turn at a time. */
  conversation(): Conversation {
    this.alive();
    return new Conversation(this.engine);
  }

  /**
   * Token ids of a prompt. A text that cannot fit in the context even with the longest tokens is refused without
   * tokenizing it.
   * @throws OptionError, TemplateError, TokenizerError, LanewiseError NoTokenizer, NoChatTemplate, ContextLengthExceeded
   */
  encode(prompt: Prompt): number[] {
    return this.engine.prompts.encode(prompt);
  }

  /**
   * A sequence in the cache, for `step`.
   * @param expected the least number of tokens that it will have, if known (LongRoPE)
   */
  sequence(expected = 0): SequenceHandle {
    this.alive();
    return this.engine.sequence(expected);
  }

  /**
   * One forward over rows of several sequences, at most `maxRows` in all, of which at most `maxSequences` are wanted.
   * Returns the logits of the wanted rows, in order, valid until the next step of their sequence. All forwards of a
   * model run one after the other.
   * @throws OptionError for invalid rows
   */
  async step(parts: readonly StepRows[], options: StepOptions = {}): Promise<StepLogits[]> {
    return this.engine.step(parts, options);
  }

  /**
   * Evaluates tokens in chunks: of every row its logits, and the taps that the model was loaded with. Reading the next chunk
   * computes it; a loop that is left computes no more. The whole [T, vocab] is never in memory.
   * @throws OptionError, ContextLengthError, immediately
   */
  forward(tokenIds: readonly number[], options: ForwardOptions = {}): AsyncGenerator<ForwardRows, void, undefined> {
    this.alive();
    return forwardRows(this.engine, checkForward(this.engine, tokenIds, options), options);
  }

  /**
   * How likely each token is after those before it, in chunks; the first token has no score. Only these numbers leave the
   * engine's thread.
   * @throws OptionError for less than two tokens, ContextLengthError, immediately
   */
  score(tokenIds: readonly number[], options: RowOptions = {}): AsyncGenerator<TokenScores, void, undefined> {
    this.alive();
    const { from = 1, signal } = options;
    return scoreTokens(this.engine, checkForward(this.engine, tokenIds, { from }, 2), { from, signal });
  }
}
