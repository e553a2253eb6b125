/**
 * Writes docs/errors.md: `node tools/errors-page.ts`. The compiler checks that every code has a row; a test checks the
 * page.
 */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type {
  BackendErrorCode,
  EngineErrorCode,
  FormatErrorCode,
  HubErrorCode,
  ModelErrorCode,
  TemplateErrorCode,
} from '../src/error-codes.ts';

/** Meaning of each code, and remedy. */
type Rows<Code extends string> = Readonly<Record<Code, readonly [meaning: string, remedy: string]>>;

const again = 'download the file again';
const report = 'report it to the tool that wrote the file';

const format: Rows<FormatErrorCode> = {
  AmbiguousCheckpoint: ['a folder has several models', 'name the file'],
  BadRow: ['the first dimension of a GGUF tensor is not a multiple of the block of its type', report],
  DuplicateKey: ['a key occurs twice', report],
  DuplicateTensor: ['a tensor occurs twice, in one file or in two shards', 'remove the superfluous file'],
  EmptyName: ['a tensor or a key of a GGUF file has no name', report],
  FileChanged: ['a file was replaced while it was read', 'load it again'],
  HeaderTooLarge: ['a header is larger than any model needs', again],
  HeaderTooSmall: ['a file ends before its header does', again],
  HttpStatus: ['a server answered a range request with an error', 'check the address'],
  IncompleteBuffer: ['a SafeTensors file is shorter or longer than its header says', again],
  IncompleteHeader: ['a GGUF file ends before its header does', again],
  InvalidAlignment: ['`general.alignment` of a GGUF file is not a power of two', report],
  InvalidBench: ['a file was not written by `lanewise bench --save`', 'measure again'],
  InvalidChecksum: ['a saved cache was damaged', 'save the cache again'],
  InvalidBool: ['a bool in a GGUF file is neither 0 nor 1', report],
  InvalidHeaderLength: ['a SafeTensors file says that its header is longer than the file', again],
  InvalidIndex: ['the index of a sharded model does not map tensors to files', again],
  InvalidJson: ['a file is not valid JSON', again],
  InvalidLength: ['a part of a file is longer than the file', again],
  InvalidMetadata: ['`__metadata__` of a SafeTensors file does not map strings to strings', report],
  InvalidOffset: ['data of tensors overlap or leave gaps', report],
  InvalidPlan: ['a file is not a storage plan, or names no known storage', 'mend the named field (docs/plans.md)'],
  InvalidRange: ['a server sent another range than requested', 'use a server that supports ranges'],
  InvalidRecording: ['a file is not a recording, or was damaged', 'record again'],
  InvalidShape: ['a tensor has too many dimensions', report],
  InvalidSplit: ['parts of a GGUF model do not belong together', 'download all parts from one place'],
  InvalidUtf8: ['a text in a file is not valid UTF-8', again],
  Misaligned: ['the values of a SafeTensors tensor do not fill whole bytes', report],
  MissingShard: ['a file that the index of the model names is missing', 'download it too'],
  MissingTensor: ['a tensor that the index names is not in its file', again],
  NameTooLong: ['the name of a tensor in a GGUF file is too long', report],
  NestedArray: ['metadata of a GGUF file has an array of arrays', report],
  NotACache: ['a file is not a saved cache', 'name a file of saveCache'],
  NoCheckpoint: ['there are no weights', 'name a folder with .safetensors files, or a .gguf file'],
  NotAFile: ['a path is a folder, a device or a socket instead of a file', 'remove it'],
  NotGguf: ['a file is not GGUF', 'check its name, or download it again'],
  NotInteger: ['a shape or an offset is not an integer of 0 or more', report],
  NotJsonObject: ['the header of a SafeTensors file is not a JSON object', again],
  NotPermitted: ["Node's permissions, or those of the file, forbid reading it", 'give --allow-fs-read, or change them'],
  OtherModel: [
    'a saved cache or a recording belongs to another model, storage or version',
    'save the cache again; replay with the model of the recording',
  ],
  NotFinite: ['a saved cache has keys or values that are not finite', 'save the cache again'],
  NotTheFile: ['a file is an HTML page, an archive or a Git LFS pointer', 'download the file itself'],
  OutOfFile: ['an offset is beyond the end of the file', again],
  OutOfTensor: ['a read beyond the end of a tensor', 'read within the tensor'],
  Overflow: ['a tensor is larger than 2^53 bytes', report],
  TensorInvalidInfo: ['the description of a tensor is incomplete or contradicts itself', report],
  TooLarge: ['a file of settings is larger than any model needs', again],
  TooMany: ['a GGUF file claims more tensors or keys than any model has', again],
  TooManyOpenFiles: ['the process has used up its file descriptors', 'raise the limit (ulimit -n), or dispose models'],
  UnknownDtype: ['a SafeTensors file has an unknown dtype', 'convert the file'],
  UnknownValueType: ['metadata of a GGUF file has an unknown type', 'update Lanewise'],
  UnknownVersion: ['a file of `lanewise bench --save` is of another version', 'measure again'],
  UnlistedTensor: ['a file has a tensor that the index lists in another file, or not at all', again],
  UnsafeFileName: ['an index names a file outside its folder', 'do not use this model'],
  UnsupportedType: ['a tensor of a GGUF file has a type that is unknown or was removed from GGUF', 'convert the file'],
  UnsupportedVersion: ['a GGUF file is of another version', 'convert the file'],
};

const model: Rows<ModelErrorCode> = {
  InvalidConfig: ['config.json or GGUF metadata has invalid or unsupported settings', 'see `problems`'],
  InvalidTokenizer: ['the tokenizer is broken or not supported', 'download its files again; token ids work'],
  NoConfig: ['there is no config.json beside the weights', 'download it too'],
  NoModel: [
    'nothing is at the path, or the embedded model is not installed',
    'check the path, or npm install lanewise-stories',
  ],
  NoTokenizer: ['the folder or the file has no tokenizer', 'download its tokenizer too'],
  NotADecoder: ['an encoder was loaded to generate text', 'use `loadEncoder`, lanewise embed'],
  NotAnEncoder: ['a decoder was loaded to embed texts', 'use `load`, lanewise generate'],
  NotConvertible: ['a tensor cannot be converted to the requested type', 'choose another type'],
  NotFinite: [
    'weights have NaN, an infinity, or values that their storage type cannot represent',
    'choose another storage type',
  ],
  NotTheModel: ['a GGUF file is an adapter, a vocabulary or the image part of a model', 'name the file of the model'],
  NotWritable: ['the model cannot be written as a GGUF file', 'write .safetensors'],
  TensorMismatch: [
    'tensors are missing, unknown, or have wrong shapes',
    'see `problems`; check that files belong together',
  ],
  UnknownModelType: ['an architecture that Lanewise does not support', 'see docs/models.md'],
  UnsupportedPooling: ["the model's pooling or its modules are not supported", 'choose a pooling'],
};

const hub: Rows<HubErrorCode> = {
  AmbiguousModel: ['a repository has several models', 'name one: org/name-GGUF:Q4_K_M'],
  CommitMismatch: ['the repository changed during the download', 'try again'],
  CutOff: ['the connection ended too early', 'try again: the download resumes'],
  DiskFull: ['the disk has no room for the file', 'make room, or set HF_HUB_CACHE'],
  EntryNotFound: ['the repository has no such file', 'check its name'],
  GatedRepo: ['the owner requires your consent', "give it on the model's page, then set HF_TOKEN"],
  HashMismatch: ['the hash of a file is not the one that the hub states', 'try again'],
  HttpStatus: ['an unexpected status', 'try again; check HF_ENDPOINT'],
  InsecureRedirect: ['a redirect from https to http', 'check HF_ENDPOINT'],
  InvalidAnswer: ['a response without a list of files or a commit', 'check HF_ENDPOINT'],
  InvalidEndpoint: ['HF_ENDPOINT is not an address', 'correct it'],
  InvalidEtag: ['an HTML page instead of a file', 'check HF_ENDPOINT'],
  InvalidId: ['the name is neither a path nor an id of the hub', 'write organisation/name'],
  InvalidIndex: ['the index of a sharded model does not map tensors to files', 'download another revision'],
  InvalidProxy: ['the address of the proxy is wrong', 'correct HTTPS_PROXY'],
  InvalidRedirect: ['a redirect without a valid address', 'check HF_ENDPOINT'],
  InvalidRevision: ['the revision is not a valid name of a branch, tag or commit, or MODEL is not an id', 'check it'],
  NetworkError: ['no connection', 'check the network, HF_ENDPOINT and HTTPS_PROXY'],
  NoWeights: ['the repository has no weights that can be read', 'choose another repository'],
  NotCached: ['the model is not in the cache', 'download it; lanewise list'],
  NotTheFile: ['a Git LFS pointer or an HTML page instead of a file', 'try again; check HF_ENDPOINT'],
  NothingToDownload: ['no file matches include and exclude', 'change them'],
  Offline: ['HF_HUB_OFFLINE is set and the cache does not have the model', 'unset it, or download the model first'],
  ProxyRefused: ['the proxy refuses to connect', 'check HTTPS_PROXY and NO_PROXY'],
  RepositoryNotFound: ['there is no such model', 'check the id'],
  RevisionNotFound: ['there is no such branch, tag or commit', 'check it'],
  ServerError: ['the server failed', 'try again later'],
  SizeMismatch: ['a file is longer or shorter than the hub says', 'try again'],
  Stalled: ['no data was received for a long time', 'try again'],
  TooLarge: ['a response is larger than any list of files', 'check HF_ENDPOINT'],
  TooManyRedirects: ['redirects do not end', 'check HF_ENDPOINT'],
  TooManyRequests: ['the server limits how often you ask', 'try again later, or set HF_TOKEN'],
  Unauthorized: ['a private model, or a wrong token', 'check the id, set HF_TOKEN'],
  Unreachable: ['the browser cannot read the response (network, CORS)', 'serve the files with CORS headers'],
  UnsafeCache: ['a folder of the cache is a link that leads out of it', 'remove the link'],
  UnsafeFileName: ['the repository names a file outside its folder', 'do not use this model'],
};

const template: Rows<TemplateErrorCode> = {
  InvalidData: ['messages or tools are too deeply nested, circular, or not plain data', 'give plain JSON data'],
  InvalidTemplate: ['the template is invalid, or exceeds its limits', 'give another template'],
  Raised: ['the template refuses the messages', 'change them as the message says'],
};

const backend: Rows<BackendErrorCode> = {
  EngineLost: [
    'the thread of an engine ended or does not respond',
    'try again: a new engine starts; if that is lost too, load the model again',
  ],
  KernelFailed: [
    'a kernel trapped, or a thread ended or did not finish',
    'try again: the next forward has new threads; report it',
  ],
  SelfCheckFailed: ['kernels give wrong values on this machine', 'report it; `backend: "reference"` works'],
  ThreadFailed: ['a thread ended, or could not start', 'load the model again, with fewer threads'],
};

const engine: Rows<EngineErrorCode> = {
  BenchFailed: ['the process of a benchmark failed', 'see the message'],
  Busy: [
    'too many requests wait, or a conversation is answering already',
    'try again later, or wait for the end of that turn',
  ],
  CallbackFailed: ['a constraint or logits processor threw an error, which is the `cause`', 'correct that function'],
  ContextLengthExceeded: [
    'the prompt is longer than the context',
    'shorten it, raise `contextLength`, or `contextShift`',
  ],
  Disposed: ['the model or the conversation has been disposed', 'load it again'],
  Internal: ['a bug in the engine; `cause` has the error', 'report it'],
  InvalidBatch: ['rows of a forward that the backend cannot take', 'report it'],
  InvalidOption: ['an option is outside its range; `option` names it', 'see the message'],
  NoCandidate: ['all tokens are forbidden', 'forbid fewer tokens in `logitBias` or the constraint'],
  NoFiles: ['a cache was to be saved or restored in a browser', 'use Node'],
  NoChatTemplate: ['the model has no chat template', 'give a prompt, or a template'],
  NoTokenizer: ['the model has no tokenizer', 'give token ids'],
  NotWritten: ['a trace or a recording cannot be written', 'name a file in a folder that can be written'],
  NotComparable: [
    'benchmarks of different models, options or machines, or models of different shapes',
    'measure both in the same way; compare models of one architecture and size',
  ],
  NumericError: ['logits are not finite', 'store the weights in another type'],
  OutOfMemory: [
    'memory is exhausted: see `asked` and `available`',
    'a smaller context, fewer sequences, smaller weights',
  ],
  Timeout: ['`timeoutMs` passed, with `throwOnTimeout`', 'raise it'],
  UnknownTap: ['forwards keep no rows of this name', 'load with `taps`'],
  Usage: ['command line only: an option or its file is wrong', 'see the message'],
};

const sections: readonly (readonly [title: string, rows: Rows<string>])[] = [
  ['FormatError: files', format],
  ['ModelError and TokenizerError: contents of model files', model],
  ['HubError: the hub, its cache, the network', hub],
  ['TemplateError: chat templates', template],
  ['BackendError: threads and kernels', backend],
  ['LanewiseError, OptionError and OutOfMemoryError', engine],
];

export const documentedCodes: readonly string[] = sections.flatMap(([, rows]) => Object.keys(rows));

export function errorsPage(): string {
  const tables = sections.map(([title, rows]) => {
    const lines = Object.entries(rows).map(([code, [meaning, remedy]]) => `| \`${code}\` | ${meaning} | ${remedy} |`);
    return `## ${title}\n\n| code | meaning | what to do |\n| --- | --- | --- |\n${lines.join('\n')}\n`;
  });
  return `# Errors

Every error that users can fix is a \`LanewiseError\`: its message is one line that says what was expected, what was found and
what to do, and its \`code\` is for programs. \`code\` has the type \`ErrorCode\`, in the classes below a subset of it, so the
compiler refuses unknown codes. Use \`instanceof\` to tell the classes apart. An abort throws the reason of its signal.

Written by \`node tools/errors-page.ts\`.

${tables.join('\n')}`;
}

if (import.meta.main) writeFileSync(path.join(import.meta.dirname, '../docs/errors.md'), errorsPage());
