/** The rooms of the code and what each may import, checked by check-house.ts. */

export interface Room {
  /** Purpose of the room, in one sentence; printed with its size. */
  readonly what: string;
  /** Rooms that may be imported; `name (types)`: only with `import type`. */
  readonly imports: readonly string[];
  readonly packages?: readonly string[];
}

export interface Rules {
  /**
   * Folder below src -> what its files may import besides each other and the shared files. A file belongs to the room with
   * the longest matching folder. Rooms must not import each other in circles.
   */
  readonly rooms: Readonly<Record<string, Room>>;
  /** Files below src that all rooms may import. They import only each other. */
  readonly shared: readonly string[];
  /** Files below src that may use the platform: `node:*`, and each other. A folder ends in a slash. */
  readonly platform: readonly string[];
  readonly maxLines: number;
  /** For src/models: the description of a model must be short enough to read at once. */
  readonly maxArchitectureLines: number;
  /** File -> reason why it may be longer. */
  readonly long: Readonly<Record<string, string>>;
}

/** `surface` is src/*.ts: the public API. */
export const rules: Rules = {
  rooms: {
    formats: { what: 'Opens SafeTensors and GGUF: headers, and views on tensor bytes.', imports: [] },
    quant: { what: 'Defines every storage type: bits, blocks, rounding.', imports: [] },
    tokenizer: { what: 'Turns text into token ids and back.', imports: [] },
    chat: { what: 'Turns messages into the text of a prompt, by the chat template.', imports: ['tokenizer'] },
    profile: {
      what: 'Turns times per step into the log, tables and a trace.',
      imports: [],
      packages: ['@logtape/logtape'],
    },
    wasm: { what: 'Assembles WebAssembly modules.', imports: [] },
    kernels: { what: 'Emits the kernels, one family per file.', imports: ['wasm', 'quant'] },
    plan: { what: 'Describes a forward as a list of steps over row buffers.', imports: ['quant', 'profile'] },
    models: {
      what: 'Turns config.json and tensor shapes into a plan, one architecture per file.',
      imports: ['plan', 'formats (types)', 'quant'],
    },
    backend: {
      what: 'What the engine asks of any backend: weights in, rows in, logits out.',
      imports: ['plan', 'quant'],
    },
    'backend/reference': {
      what: 'Runs a plan in plain TypeScript: the meaning of every step.',
      imports: ['plan', 'quant', 'backend'],
    },
    'backend/wasm/memory': {
      what: 'Reserves memories and says which words at their start threads share.',
      imports: ['plan', 'kernels'],
    },
    'backend/wasm/threads': {
      what: 'Starts threads, wakes them for a tape, replaces those that failed.',
      imports: ['kernels', 'backend', 'backend/wasm/memory'],
    },
    'backend/wasm/choosing': {
      what: 'Chooses the fastest kernels that this machine gets right, and remembers the choice.',
      imports: ['quant', 'kernels', 'wasm', 'backend/wasm/memory', 'backend/wasm/threads (types)'],
    },
    'backend/wasm/lowering': {
      what: 'Turns the steps of a plan into tapes of records, and gives each buffer its address.',
      imports: [
        'plan',
        'quant',
        'kernels',
        'wasm',
        'backend/wasm/memory',
        'backend/wasm/threads (types)',
        'backend/wasm/choosing',
      ],
    },
    'backend/wasm/loading': {
      what: 'Reads weights slab by slab, checks and packs them on all threads.',
      imports: [
        'plan',
        'quant',
        'kernels',
        'wasm',
        'backend',
        'backend/wasm/memory',
        'backend/wasm/threads',
        'backend/wasm/choosing',
        'backend/wasm/lowering',
      ],
    },
    'backend/wasm/measuring': {
      what: "Measures this machine's ceilings and single kernels.",
      imports: ['kernels', 'wasm', 'backend/wasm/memory', 'backend/wasm/threads', 'backend/wasm/lowering'],
    },
    'backend/wasm': {
      what: 'Builds the backend of a plan from these rooms, and runs its forwards.',
      imports: [
        'plan',
        'quant',
        'kernels',
        'backend',
        'backend/reference',
        'backend/wasm/memory',
        'backend/wasm/threads',
        'backend/wasm/choosing',
        'backend/wasm/lowering',
        'backend/wasm/loading',
      ],
    },
    sampling: { what: 'Chooses a token from logits.', imports: ['plan', 'backend'] },
    evaluate: {
      what: 'Runs forwards over sequences: plan, backend and cache.',
      imports: ['plan', 'backend', 'profile', 'formats (types)', 'models (types)'],
    },
    recording: {
      what: 'Records requests to the bit, and compares replays with recordings.',
      imports: ['backend', 'quant'],
    },
    drafting: {
      what: 'Guesses the next tokens of texts, and decides how many guesses pay.',
      imports: ['backend', 'sampling', 'evaluate'],
    },
    prompts: { what: 'Turns prompts into token ids.', imports: ['tokenizer', 'chat'] },
    schedule: {
      what: 'Puts requests into shared forwards.',
      imports: ['backend', 'prompts', 'sampling', 'drafting', 'evaluate', 'tokenizer', 'profile', 'recording (types)'],
    },
    calibrate: {
      what: 'Quantizes matrices so that their outputs on a text stay close.',
      imports: [
        'quant',
        'kernels',
        'plan',
        'models',
        'tokenizer',
        'backend',
        'backend/wasm',
        'backend/wasm/choosing',
        'backend/wasm/lowering',
        'backend/wasm/measuring',
        'backend/wasm/threads (types)',
        'engine',
      ],
    },
    convert: {
      what: 'Writes a model in another storage type.',
      imports: [
        'calibrate',
        'formats',
        'quant',
        'models',
        'plan',
        'embedding',
        'tokenizer',
        'backend',
        'backend/wasm/threads',
        'engine',
      ],
    },
    embedding: { what: "Makes one vector of a text's hidden states.", imports: ['formats', 'quant'] },
    engine: {
      what: 'Opens models, and shows them to programs.',
      imports: [
        'formats',
        'quant',
        'tokenizer',
        'chat',
        'profile',
        'plan',
        'models',
        'backend',
        'backend/reference',
        'backend/wasm',
        'backend/wasm/threads (types)',
        'sampling',
        'prompts',
        'evaluate',
        'drafting',
        'schedule',
        'recording',
        'embedding',
      ],
    },
    hosting: {
      what: 'Finds models, and runs their engines in threads of their own.',
      imports: [
        'engine',
        'prompts',
        'schedule',
        'evaluate (types)',
        'backend/wasm/threads',
        'hub',
        'formats',
        'chat',
        'tokenizer',
        'profile',
        'recording',
      ],
    },
    diagnose: {
      what: 'Checks the machine: engine, processors, memory, folders, the hub.',
      imports: ['backend/wasm', 'backend/wasm/threads', 'backend/wasm/choosing', 'backend (types)', 'quant', 'hub'],
    },
    hub: { what: 'Gets models from the Hugging Face hub, into its cache.', imports: ['formats'] },
    evaluation: {
      what: 'Judges models by texts: perplexity, divergence of predictions, where two models part.',
      imports: ['engine', 'plan', 'sampling', 'tokenizer (types)', 'report (types)'],
    },
    measure: {
      what: 'Measures a model in turns, beside the machine and beside other times; and linear layers by shape.',
      imports: [
        'surface',
        'engine (types)',
        'sampling',
        'plan',
        'quant',
        'backend',
        'backend/wasm',
        'backend/wasm/threads',
        'report',
        'profile',
      ],
    },
    report: {
      what: 'Renders tables and charts as Markdown, and as a page that loads nothing.',
      imports: [],
      packages: ['chart.js'],
    },
    tune: {
      what: 'Chooses the storage of each weight for a budget, from measurements that callers make.',
      imports: ['quant', 'plan', 'models', 'measure', 'report (types)'],
    },
    'tune/measuring': {
      what: 'Measures a model for tuning: errors, times, losses.',
      imports: [
        'tune',
        'quant',
        'plan',
        'models',
        'formats',
        'backend',
        'backend/reference',
        'backend/wasm',
        'backend/wasm/choosing',
        'backend/wasm/threads (types)',
        'calibrate',
        'evaluate',
        'engine',
        'convert',
        'measure',
      ],
    },
    server: {
      what: "Answers HTTP requests in OpenAI's protocols.",
      imports: ['engine', 'prompts', 'schedule', 'chat (types)', 'tokenizer (types)'],
      packages: ['hono', 'hono/body-limit', '@hono/node-server', 'zod'],
    },
    cli: {
      what: 'The command line.',
      imports: [
        'server',
        'surface',
        'engine',
        'prompts',
        'sampling (types)',
        'schedule',
        'embedding',
        'hub',
        'measure',
        'tune',
        'tune/measuring',
        'evaluation',
        'diagnose (types)',
        'backend (types)',
        'profile',
        'report',
      ],
      packages: ['commander'],
    },
  },
  shared: ['errors.ts', 'error-codes.ts', 'event-loop.ts', 'numbers.ts'],
  platform: [
    'formats/adapters/node.ts',
    'formats/adapters/streamed-file.ts',
    'backend/wasm/threads/cpu-quota-node.ts',
    'backend/wasm/threads/host-node.ts',
    'backend/wasm/threads/kernel-hash-node.ts',
    'backend/wasm/threads/life-node.ts',
    'backend/wasm/threads/read-node.ts',
    'backend/wasm/threads/start-node.ts',
    'backend/wasm/threads/worker-node.ts',
    'convert/convert-node.ts',
    'convert/quantize-node.ts',
    'diagnose/',
    'engine/embedded-node.ts',
    'convert/convert-worker-node.ts',
    'hosting/locate-node.ts',
    'hosting/thread-node.ts',
    'hosting/worker-checkout.ts',
    'hosting/worker-node.ts',
    'node.ts',
    'hub/cache.ts',
    'hub/digest.ts',
    'hub/download.ts',
    'hub/http.ts',
    'hub/model.ts',
    'hub/proxy.ts',
    'hub/remote.ts',
    'hub/settings.ts',
    'hub/transfer.ts',
    'hub/transfer-whole.ts',
    'hub/verify.ts',
    'measure/cache-size.ts',
    'measure/machine.ts',
    'measure/policies.ts',
    'measure/saved.ts',
    'measure/shapes.ts',
    'measure/side.ts',
    'tune/measuring/store-node.ts',
    'tune/measuring/tune-node.ts',
    'report/html.ts',
    'report/html-page.ts',
    'report/token-page.ts',
    'server/keys.ts',
    'server/serve-node.ts',
    'cli/',
  ],
  maxLines: 500,
  maxArchitectureLines: 250,
  long: {},
};
