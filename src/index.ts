/** The exports that Node and browsers share. */

import './disposal.ts';
import { useLogTape } from './profile/logtape.ts';

export type { LoadTimes, LogitsSummary } from './backend/backend.ts';
export type { Explanation } from './backend/explanation.ts';
export type { WasmHost } from './backend/wasm/threads/host.ts';
export { JsonNumber, parseJson } from './chat/json.ts';
export type {
  ChatMessage,
  ContentPart,
  FunctionCall,
  FunctionDescription,
  MediaContentPart,
  Message,
  ReasoningContentPart,
  Role,
  TextContentPart,
  Tool,
  ToolCall,
  ToolMessage,
} from './chat/messages.ts';
export { ChatTemplate, type RenderedChat, type RenderOptions } from './chat/template.ts';
export type { Pooling } from './embedding/pooling.ts';
export type { BatchEvent, BatchPrompt, BatchResult } from './engine/batch.ts';
export type { Conversation } from './engine/conversation.ts';
export type { Embedding, EmbedInput, EmbedOptions } from './engine/embed-types.ts';
export type { Encoder } from './engine/encoder.ts';
export type { NamedRows, RowScores, SequenceHandle, StepLogits, StepOptions, StepRows } from './engine/engine.ts';
export type { Generation } from './engine/generation.ts';
export { loadEncoderModel, loadModel, type ModelSource } from './engine/load.ts';
export type { EstimateOptions, Fit, MemoryEstimate, MemoryRow, RowMemory } from './engine/memory-estimate.ts';
export type { Model } from './engine/model.ts';
export type { LoadOptions } from './engine/options.ts';
export type { ForwardOptions, ForwardRows, RowOptions, TokenScores } from './engine/rows.ts';
export type { SamplingDefault, SamplingDefaults } from './engine/sampling-defaults.ts';
export type {
  BackendErrorCode,
  ErrorCode,
  FormatErrorCode,
  HubErrorCode,
  ModelErrorCode,
  TemplateErrorCode,
} from './error-codes.ts';
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
export type { CacheStats } from './evaluate/block-pool.ts';
export type { CacheFileContent } from './evaluate/cache-file.ts';
export type { ForwardReport, ForwardTiming } from './evaluate/forwards.ts';
export {
  type CompareOptions,
  type Comparison,
  compareModels,
  type LayerDifference,
  type OpenModel,
  type Parting,
  type PartingToken,
  type StepDifference,
} from './evaluation/compare.ts';
export {
  type Choice,
  type Divergence,
  type DivergenceOptions,
  divergence,
  type WorstToken,
} from './evaluation/divergence.ts';
export { type EvaluationOptions, type Perplexity, perplexity } from './evaluation/perplexity.ts';
export type { Difference } from './evaluation/row-difference.ts';
export type { Extent, WindowOptions } from './evaluation/windows.ts';
export type { ByteSource, FileFolder } from './formats/bytes.ts';
export type { ModelKind, ModelSizes } from './models/architecture.ts';
export { buildModel, type ModelDescription, modelTypes } from './models/index.ts';
export { defaultPolicy, parsePolicy, type StoragePolicy } from './models/policy.ts';
export {
  formatStoragePlan,
  type PlannedModel,
  type PlanReason,
  parseStoragePlan,
  type Quantize,
  quantizeText,
  type StoragePlan,
} from './models/storage-plan.ts';
export { printPlan } from './plan/print.ts';
export type { LinearInput, Plan } from './plan/step.ts';
export { rowsOfExpert, type TapChoice } from './plan/taps.ts';
export { configureLogging } from './profile/logtape.ts';
export type { PhaseTimes } from './profile/scopes.ts';
export { Trace, type TraceOptions, type TraceWriter } from './profile/trace.ts';
export type { ChatFormat, ChatPrompt, TokenTexts } from './prompts/chat.ts';
export type { Prompt } from './prompts/prompt.ts';
export type { KvStorage } from './quant/kv-cache.ts';
export type { ReplayDifference, ReplayedRequest } from './recording/compare.ts';
export { type Entry, type Head, parseRecording, type RecordingContent, RecordingReader } from './recording/format.ts';
export { Recording, type RecordingOptions } from './recording/recorder.ts';
export { type ReplayReport, replayRecording } from './recording/replay.ts';
export type { Constraint, LogitsProcessor } from './sampling/constraint.ts';
export type { Alternative, Stage, StageReport, TokenInspection } from './sampling/inspection.ts';
export type { TokenChoice } from './sampling/sampler.ts';
export type { SamplingOptions } from './sampling/sampling-options.ts';
export type { FinishReason, GenerateEvent, GenerateResult, StepTiming, Usage } from './schedule/events.ts';
export type { GenerateOptions } from './schedule/generation-options.ts';
export type { LineStats, SchedulerStats } from './schedule/scheduler.ts';
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
export { type VocabularyTrie, vocabularyTrie } from './tokenizer/vocabulary-trie.ts';

useLogTape();
