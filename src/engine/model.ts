/** A loaded model: generates text, evaluates tokens, and gives everything back when disposed. */
import type { CacheFileContent } from '../evaluate/cache-file.ts';
import { decodeBytes } from '../plan/memory.ts';
import type { ChatFormat } from '../prompts/chat.ts';
import { checkPrompt } from '../prompts/limits.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { GenerateResult } from '../schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../schedule/generation-options.ts';
import { type BatchEvent, type BatchPrompt, type BatchResult, generateBatch, generateStream } from './batch.ts';
import { Conversation } from './conversation.ts';
import type { Engine, NamedRows, SequenceHandle, StepLogits, StepOptions, StepRows } from './engine.ts';
import { Generation } from './generation.ts';
import { Loaded } from './loaded.ts';
import { generationRules, type SamplingDefaults } from './sampling-defaults.ts';

export class Model extends Loaded<Engine> {
  get eosTokenIds(): ReadonlySet<number> {
    return this.engine.info.eosTokenIds;
  }

  /** What options of sampling mean where they are left out, and which of the model's files says so. */
  get samplingDefaults(): SamplingDefaults {
    return this.engine.info.samplingDefaults;
  }

  /** Most rows of one forward: longer prompts are computed in chunks. */
  get maxRows(): number {
    return this.engine.info.maxRows;
  }

  /** Most requests that run at once; others wait. */
  get maxSequences(): number {
    return this.engine.info.maxWanted;
  }

  /** The model's chat template. @throws LanewiseError NoChatTemplate, TemplateError */
  get chatFormat(): ChatFormat {
    return this.engine.prompts.chatFormat;
  }

  /**
   * Writes what the cache has into a file, in whole blocks of 64 tokens, while requests go on. The file holds the keys and
   * values of people's texts: keep it as you keep these.
   */
  async saveCache(file: string): Promise<CacheFileContent> {
    this.alive();
    return this.engine.saveCache(file);
  }

  /**
   * Takes over what `saveCache` wrote, with this model or the same one elsewhere: prompts that begin in the same way then have it
   * computed, to the same bits. @throws FormatError where the file is of another model or damaged; nothing is taken then
   */
  async restoreCache(file: string): Promise<CacheFileContent> {
    this.alive();
    return this.engine.restoreCache(file);
  }

  /**
   * Bytes of matrices and cache that a decode step at `position`, or some steps of its plan, reads: the least it takes
   * the memory.
   */
  decodeBytes(position: number, steps = this.description.plan.steps): number {
    return decodeBytes(this.description.plan, position, steps);
  }

  /** One answer: its events, token by token, its text, or its result. @throws OptionError for options and prompt, at once */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    this.alive();
    const settings = validateGenerate(options, { ...generationRules(this.engine.info), single: true });
    checkPrompt(prompt);
    return new Generation((listener) => this.engine.submit({ prompt, settings }, listener), settings);
  }

  /** One whole answer. @throws OptionError; LanewiseError; the signal's reason */
  async complete(prompt: Prompt, options: GenerateOptions = {}): Promise<GenerateResult> {
    return this.generate(prompt, options).result;
  }

  /**
   * Many prompts in shared forwards; results in their order, each as if it had run alone. What is wrong with one prompt is the
   * `error` of its result. @throws OptionError for the options, and where an abort is to throw
   */
  async generateBatch(prompts: readonly BatchPrompt[], options: GenerateOptions = {}): Promise<BatchResult[]> {
    this.alive();
    return generateBatch(this.engine, prompts, options);
  }

  /** Events of many prompts in shared forwards, as they come; `index` says of which prompt. @throws OptionError */
  generateStream(
    prompts: readonly BatchPrompt[],
    options: GenerateOptions = {},
  ): AsyncGenerator<BatchEvent, void, undefined> {
    this.alive();
    return generateStream(this.engine, prompts, options);
  }

  /** A conversation, one turn at a time. */
  conversation(): Conversation {
    this.alive();
    return new Conversation(this.engine);
  }

  /**
   * Token ids of a prompt. Long texts are refused where even the longest tokens would not fit them into the context.
   * @throws OptionError, TemplateError, TokenizerError, LanewiseError NoTokenizer, NoChatTemplate, ContextLengthExceeded
   */
  encode(prompt: Prompt): number[] {
    return this.engine.prompts.encode(prompt);
  }

  /** A sequence of its own in the cache, for `step`. @param expected tokens that it will have at least, as far as is known */
  sequence(expected = 0): SequenceHandle {
    this.alive();
    return this.engine.sequence(expected);
  }

  /**
   * One forward over rows of several sequences, at most `maxRows` in all, of which at most `maxSequences` are wanted. Logits
   * of the wanted ones, in order, valid until the next step of their sequence. Forwards of one model run one after the other,
   * whoever asks.
   * @throws OptionError for rows that it cannot take
   */
  async step(parts: readonly StepRows[], options: StepOptions = {}): Promise<StepLogits[]> {
    return this.engine.step(parts, options);
  }

  /**
   * Logits of every position of `tokenIds` [T, vocab], and the hidden states hidden.0 .. hidden.L where loaded with
   * `hidden`.
   */
  async forward(tokenIds: readonly number[]): Promise<NamedRows> {
    return this.engine.forward(tokenIds);
  }
}
