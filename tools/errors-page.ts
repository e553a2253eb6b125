/** Writes docs/errors.md: `node tools/errors-page.ts`. The compiler holds the rows to the codes, a test the page to the rows. */
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

/** What a code means, and what to do. */
type Rows<Code extends string> = Readonly<Record<Code, readonly [meaning: string, remedy: string]>>;

const again = 'download the file again';
const report = 'report it to the tool that wrote the file';

const format: Rows<FormatErrorCode> = {
  AmbiguousCheckpoint: ['a folder has several models', 'name the file'],
  BadRow: ['the first dimension of a GGUF tensor is no multiple of the block of its type', report],
  DuplicateKey: ['a key stands twice', report],
  DuplicateTensor: ['a tensor stands twice, in one file or in two shards', 'remove the file that is too much'],
  EmptyName: ['a tensor or a key of a GGUF file has no name', report],
  FileChanged: ['a file was replaced while it was read', 'load it again'],
  HeaderTooLarge: ['a header is larger than any model needs', again],
  HeaderTooSmall: ['a file ends before its header does', again],
  HttpStatus: ['a server answers a request for part of a file with an error', 'check the address'],
  IncompleteBuffer: ['a SafeTensors file is shorter or longer than its header says', again],
  IncompleteHeader: ['a GGUF file ends before its header does', again],
  InvalidAlignment: ['`general.alignment` of a GGUF file is no power of two', report],
  InvalidBench: ['a file is none of `lanewise bench --save`', 'measure again'],
  InvalidChecksum: ['a saved cache was damaged', 'save the cache again'],
  InvalidBool: ['a truth value of a GGUF file is neither 0 nor 1', report],
  InvalidHeaderLength: ['a SafeTensors file says that its header is longer than the file', again],
  InvalidIndex: ['the index of a model in several files is no map from tensors to files', again],
  InvalidJson: ['a file is not valid JSON', again],
  InvalidLength: ['a part of a file is longer than the file', again],
  InvalidMetadata: ['`__metadata__` of a SafeTensors file is no map of texts', report],
  InvalidOffset: ['data of tensors overlap or leave gaps', report],
  InvalidRange: ['a server answers with other bytes than it was asked for', 'use a server that supports ranges'],
  InvalidShape: ['a tensor has too many dimensions', report],
  InvalidSplit: ['parts of a GGUF model do not belong together', 'download all parts from one place'],
  InvalidUtf8: ['a text in a file is not valid UTF-8', again],
  Misaligned: ['the values of a SafeTensors tensor do not fill whole bytes', report],
  MissingShard: ['a file that the index of the model names is missing', 'download it too'],
  MissingTensor: ['a tensor that the index names is not in its file', again],
  NameTooLong: ['a tensor of a GGUF file has too long a name', report],
  NestedArray: ['metadata of a GGUF file has an array of arrays', report],
  NotACache: ['a file is no saved cache', 'name a file of saveCache'],
  NoCheckpoint: ['there are no weights', 'name a folder with .safetensors files, or a .gguf file'],
  NotAFile: ['a folder, a device or a socket stands where a file should', 'remove it'],
  NotGguf: ['a file is not GGUF', 'check its name, or download it again'],
  NotInteger: ['a shape or an offset is not an integer of 0 or more', report],
  NotJsonObject: ['the header of a SafeTensors file is not a JSON object', again],
  NotPermitted: ["Node's permissions, or those of the file, forbid to read it", 'give --allow-fs-read, or change them'],
  OtherModel: ['a saved cache is of another model, storage or version', 'save the cache again'],
  NotFinite: ['a saved cache holds a key or value that is not finite', 'save the cache again'],
  NotTheFile: ['a page, an archive or a pointer of Git LFS stands where a file should', 'download the file itself'],
  OutOfFile: ['something lies beyond the end of the file', again],
  OutOfTensor: ['a read beyond the end of a tensor', 'ask for bytes that the tensor has'],
  Overflow: ['a tensor is larger than 2^53 bytes', report],
  TensorInvalidInfo: ['the description of a tensor is incomplete or contradicts itself', report],
  TooLarge: ['a file of settings is larger than any model needs', again],
  TooMany: ['a GGUF file claims more tensors or keys than any model has', again],
  TooManyOpenFiles: ['the process has used up its file descriptors', 'raise the limit (ulimit -n), or dispose models'],
  UnknownDtype: ['a SafeTensors file has a type of values that is not known', 'convert the file'],
  UnknownValueType: ['metadata of a GGUF file have a type that is not known', 'update Lanewise'],
  UnknownVersion: ['a file of `lanewise bench --save` is of another version', 'measure again'],
  UnlistedTensor: ['a file has a tensor that the index gives to another file, or does not name', again],
  UnsafeFileName: ['an index names a file outside of its folder', 'do not use this model'],
  UnsupportedType: [
    'a tensor of a GGUF file has a type that is not known, or was removed from GGUF',
    'convert the file',
  ],
  UnsupportedVersion: ['a GGUF file is of another version', 'convert the file'],
};

const model: Rows<ModelErrorCode> = {
  InvalidConfig: [
    'config.json, or metadata in its place, has settings that are wrong or not supported',
    'see `problems`',
  ],
  InvalidTokenizer: ['the tokenizer is broken or not supported', 'download its files again; token ids work'],
  NoConfig: ['there is no config.json beside the weights', 'download it too'],
  NoModel: [
    'nothing is at the path, or the embedded model is not installed',
    'check the path, or npm install lanewise-stories',
  ],
  NoTokenizer: ['the folder or the file has no tokenizer', 'download its tokenizer too'],
  NotADecoder: ['an encoder, where text is to be generated', 'use `loadEncoder`, lanewise embed'],
  NotAnEncoder: ['a model that generates text, where texts are to be embedded', 'use `load`, lanewise generate'],
  NotConvertible: ['a tensor cannot be written in the type that is asked for', 'choose another type'],
  NotFinite: [
    'weights have NaN, an infinity, or values that their storage type cannot represent',
    'choose another storage type',
  ],
  NotTheModel: ['a GGUF file is an adapter, a vocabulary or the image part of a model', 'name the file of the model'],
  NotWritable: ['the model cannot be written as a GGUF file', 'write .safetensors'],
  TensorMismatch: [
    'tensors are missing, have other shapes, or are not known',
    'see `problems`; check that files belong together',
  ],
  UnknownModelType: ['an architecture that Lanewise does not have', 'see docs/models.md'],
  UnsupportedPooling: ["the model's pooling or its modules are not supported", 'choose a pooling'],
};

const hub: Rows<HubErrorCode> = {
  AmbiguousModel: ['a repository has several models', 'name one: org/name-GGUF:Q4_K_M'],
  CommitMismatch: ['the repository changed while it was fetched', 'try again'],
  CutOff: ['the connection ended too early', 'try again: it goes on where it ended'],
  DiskFull: ['the disk has no room for the file', 'make room, or set HF_HUB_CACHE'],
  EntryNotFound: ['the repository has no such file', 'check its name'],
  GatedRepo: ['the owner asks for your consent', "give it on the model's page, then set HF_TOKEN"],
  HashMismatch: ['a file has other bytes than the hub says', 'try again'],
  HttpStatus: ['an answer that is not expected', 'try again; check HF_ENDPOINT'],
  InsecureRedirect: ['a redirect from https to http', 'check HF_ENDPOINT'],
  InvalidAnswer: ['an answer that is no list of files, or no commit', 'check HF_ENDPOINT'],
  InvalidEndpoint: ['HF_ENDPOINT is no address', 'mend it'],
  InvalidEtag: ['a page, where a file should be', 'check HF_ENDPOINT'],
  InvalidId: ['the name is neither a path nor an id of the hub', 'write organisation/name'],
  InvalidIndex: ['the index of a model in several files is no map from tensors to files', 'download another revision'],
  InvalidProxy: ['the address of the proxy is wrong', 'mend HTTPS_PROXY'],
  InvalidRedirect: ['a redirect to what is no address', 'check HF_ENDPOINT'],
  InvalidRevision: ['the revision is no name of a branch, tag or commit, or stands where there is no id', 'check it'],
  NetworkError: ['no connection', 'check the network, HF_ENDPOINT and HTTPS_PROXY'],
  NoWeights: ['the repository has no weights that can be read', 'take another repository'],
  NotCached: ['the model is not in the cache', 'download it; lanewise list'],
  NotTheFile: ['a pointer of Git LFS or a page, where a file should be', 'try again; check HF_ENDPOINT'],
  NothingToDownload: ['include and exclude leave no file', 'change them'],
  Offline: ['HF_HUB_OFFLINE is set and the cache does not have the model', 'unset it, or download the model before'],
  ProxyRefused: ['the proxy refuses to connect', 'check HTTPS_PROXY and NO_PROXY'],
  RepositoryNotFound: ['there is no such model', 'check the id'],
  RevisionNotFound: ['there is no such branch, tag or commit', 'check it'],
  ServerError: ['the server has failed', 'try again later'],
  SizeMismatch: ['a file is longer or shorter than the hub says', 'try again'],
  Stalled: ['no bytes came for a long time', 'try again'],
  TooLarge: ['an answer is larger than any list of files', 'check HF_ENDPOINT'],
  TooManyRedirects: ['redirects do not end', 'check HF_ENDPOINT'],
  TooManyRequests: ['the server limits how often you ask', 'try again later, or set HF_TOKEN'],
  Unauthorized: ['a private model, or a wrong token', 'check the id, set HF_TOKEN'],
  Unreachable: ['a page cannot read what the server answers (network, CORS)', 'serve the files with CORS headers'],
  UnsafeCache: ['a folder of the cache is a link out of it', 'remove the link'],
  UnsafeFileName: ['the repository names a file outside of its folder', 'do not use this model'],
};

const template: Rows<TemplateErrorCode> = {
  InvalidData: ['messages or tools that no template can read: too deep, circular, or no data', 'give plain JSON data'],
  InvalidTemplate: ['the template has a mistake, or exceeds its limits', 'give another template'],
  Raised: ['the template refuses the messages', 'order or mend them as the message says'],
};

const backend: Rows<BackendErrorCode> = {
  EngineLost: [
    'the thread of an engine ended or gives no sign of life',
    'ask again: a new engine starts; if it is lost again, load the model again',
  ],
  KernelFailed: ['a kernel trapped, or a thread did not end its work', 'load the model again; report it'],
  SelfCheckFailed: ['kernels give wrong values on this machine', 'report it; `backend: "reference"` works'],
  ThreadFailed: ['a thread ended, or could not start', 'load the model again, with fewer threads'],
};

const engine: Rows<EngineErrorCode> = {
  BenchFailed: ['a benchmark in a process of its own failed', 'see the message'],
  Busy: [
    'too many requests wait, or a conversation is answering already',
    'try again later, or wait for the end of that turn',
  ],
  CallbackFailed: ['a constraint or logits processor threw an error, which is the `cause`', 'mend that function'],
  ContextLengthExceeded: [
    'the prompt is longer than the context',
    'shorten it, raise `contextLength`, or `contextShift`',
  ],
  Disposed: ['the model or the conversation has been disposed', 'load it again'],
  Internal: ['a step failed by a fault of the engine; `cause` has it', 'report it'],
  InvalidBatch: ['rows of a forward that the backend cannot take', 'report it'],
  InvalidOption: ['an option is outside its range; `option` names it', 'see the message'],
  NoCandidate: ['no token is left to choose from', 'forbid fewer tokens in `logitBias` or the constraint'],
  NoFiles: ['a browser was asked to save or restore a cache', 'do it in Node'],
  NoChatTemplate: ['the model has no chat template', 'give a prompt, or a template'],
  NoTokenizer: ['the model has no tokenizer', 'give token ids'],
  NotComparable: ['benchmarks of different models, options or machines', 'measure both alike'],
  NumericError: ['logits are not finite', 'store the weights in another type'],
  OutOfMemory: [
    'there is no memory: `asked` and `available` say how much',
    'a smaller context, fewer sequences, smaller weights',
  ],
  Timeout: ['`timeoutMs` passed, with `throwOnTimeout`', 'raise it'],
  UnknownTap: ['the plan keeps no such hidden states', 'load with `hidden`'],
  Usage: ['only of the command line: an option or its file is wrong', 'see the message'],
};

const sections: readonly (readonly [title: string, rows: Rows<string>])[] = [
  ['FormatError: files', format],
  ['ModelError and TokenizerError: what files say of a model', model],
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

Every error that people can mend is a \`LanewiseError\` with one line that says what was expected, what was found and what to
do, and a \`code\` for programs. \`code\` has the type \`ErrorCode\`, in the classes below a part of it: the compiler refuses
codes that do not exist. \`instanceof\` tells the classes apart. An abort throws the reason of its signal.

Written by \`node tools/errors-page.ts\`.

${tables.join('\n')}`;
}

if (import.meta.main) writeFileSync(path.join(import.meta.dirname, '../docs/errors.md'), errorsPage());
