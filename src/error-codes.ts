/** Stable codes of errors. Their meanings are in tools/errors-page.ts, which writes docs/errors.md. */

/** Files: SafeTensors, GGUF, JSON, and reading them. */
export type FormatErrorCode =
  | 'AmbiguousCheckpoint'
  | 'BadRow'
  | 'DuplicateKey'
  | 'DuplicateTensor'
  | 'EmptyName'
  | 'FileChanged'
  | 'HeaderTooLarge'
  | 'HeaderTooSmall'
  | 'HttpStatus'
  | 'IncompleteBuffer'
  | 'IncompleteHeader'
  | 'InvalidAlignment'
  | 'InvalidBench'
  | 'InvalidBool'
  | 'InvalidChecksum'
  | 'InvalidHeaderLength'
  | 'InvalidIndex'
  | 'InvalidJson'
  | 'InvalidLength'
  | 'InvalidMetadata'
  | 'InvalidOffset'
  | 'InvalidPlan'
  | 'InvalidRange'
  | 'InvalidRecording'
  | 'InvalidShape'
  | 'InvalidSplit'
  | 'InvalidUtf8'
  | 'Misaligned'
  | 'MissingShard'
  | 'MissingTensor'
  | 'NameTooLong'
  | 'NestedArray'
  | 'NoCheckpoint'
  | 'NotACache'
  | 'NotAFile'
  | 'NotFinite'
  | 'NotGguf'
  | 'NotInteger'
  | 'NotJsonObject'
  | 'NotPermitted'
  | 'NotTheFile'
  | 'OtherModel'
  | 'OutOfFile'
  | 'OutOfTensor'
  | 'Overflow'
  | 'TensorInvalidInfo'
  | 'TooLarge'
  | 'TooMany'
  | 'TooManyOpenFiles'
  | 'UnknownDtype'
  | 'UnknownValueType'
  | 'UnknownVersion'
  | 'UnlistedTensor'
  | 'UnsafeFileName'
  | 'UnsupportedType'
  | 'UnsupportedVersion';

/** Contents of a model's files. */
export type ModelErrorCode =
  | 'InvalidConfig'
  | 'InvalidTokenizer'
  | 'NoConfig'
  | 'NoModel'
  | 'NoTokenizer'
  | 'NotADecoder'
  | 'NotAnEncoder'
  | 'NotConvertible'
  | 'NotFinite'
  | 'NotTheModel'
  | 'NotWritable'
  | 'TensorMismatch'
  | 'UnknownModelType'
  | 'UnsupportedPooling';

/** The hub, its cache and the network. */
export type HubErrorCode =
  | 'AmbiguousModel'
  | 'CommitMismatch'
  | 'CutOff'
  | 'DiskFull'
  | 'EntryNotFound'
  | 'GatedRepo'
  | 'HashMismatch'
  | 'HttpStatus'
  | 'InsecureRedirect'
  | 'InvalidAnswer'
  | 'InvalidEndpoint'
  | 'InvalidEtag'
  | 'InvalidId'
  | 'InvalidIndex'
  | 'InvalidProxy'
  | 'InvalidRedirect'
  | 'InvalidRevision'
  | 'NetworkError'
  | 'NoWeights'
  | 'NotCached'
  | 'NotTheFile'
  | 'NothingToDownload'
  | 'Offline'
  | 'ProxyRefused'
  | 'RepositoryNotFound'
  | 'RevisionNotFound'
  | 'ServerError'
  | 'SizeMismatch'
  | 'Stalled'
  | 'TooLarge'
  | 'TooManyRedirects'
  | 'TooManyRequests'
  | 'Unauthorized'
  | 'Unreachable'
  | 'UnsafeCache'
  | 'UnsafeFileName';

/** Chat templates. */
export type TemplateErrorCode = 'InvalidData' | 'InvalidTemplate' | 'Raised';

/** Threads and kernels. */
export type BackendErrorCode = 'EngineLost' | 'KernelFailed' | 'SelfCheckFailed' | 'ThreadFailed';

/** Errors without a separate class, or whose class has one code. */
export type EngineErrorCode =
  | 'BenchFailed'
  | 'Busy'
  | 'CallbackFailed'
  | 'ContextLengthExceeded'
  | 'Disposed'
  | 'Internal'
  | 'InvalidBatch'
  | 'InvalidOption'
  | 'NoCandidate'
  | 'NoChatTemplate'
  | 'NoFiles'
  | 'NoTokenizer'
  | 'NotComparable'
  | 'NotWritten'
  | 'NumericError'
  | 'OutOfMemory'
  | 'Timeout'
  | 'UnknownTap'
  | 'Usage';

export type ErrorCode =
  | FormatErrorCode
  | ModelErrorCode
  | HubErrorCode
  | TemplateErrorCode
  | BackendErrorCode
  | EngineErrorCode;
