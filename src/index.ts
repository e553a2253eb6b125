/** What every surrounding exports alike. */

export { ChatTemplate, type Message, type RenderOptions } from './chat/template.ts';
export type { ChatFormat, ChatPrompt } from './engine/chat.ts';
export type { Conversation } from './engine/conversation.ts';
export type { Embedding, EmbedOptions, Encoder } from './engine/encoder.ts';
export type { FinishReason, GenerateEvent, GenerateResult, StepTiming } from './engine/generate.ts';
export type { GenerateOptions } from './engine/generation-options.ts';
export { loadEncoderModel, loadModel, type ModelSource } from './engine/load.ts';
export type { Model, Prompt } from './engine/model.ts';
export type { LoadOptions } from './engine/options.ts';
export type { Pooling } from './engine/pooling.ts';
export {
  BackendError,
  FormatError,
  HubError,
  LanewiseError,
  ModelError,
  OptionError,
  OutOfMemoryError,
  TemplateError,
  TokenizerError,
} from './errors.ts';
export { buildModel, type ModelDescription, modelTypes } from './models/index.ts';
export { defaultPolicy, parsePolicy, type StoragePolicy } from './models/policy.ts';
export { printPlan } from './plan/print.ts';
export { configureLogging } from './profile/log.ts';
export { tokenizerFromGguf } from './tokenizer/gguf.ts';
export { loadTokenizer, type TokenizerFiles } from './tokenizer/load.ts';
export { loadSentencePiece } from './tokenizer/sentencepiece.ts';
export type {
  DecodeOptions,
  EncodedPair,
  EncodeOptions,
  IncrementalDecoder,
  TextPart,
  Tokenizer,
} from './tokenizer/tokenizer.ts';
