/**
 * Checks the structure of the code: imports between rooms, use of the platform, length of files, reasons for
 * dependencies. Run by `npm run check`; the rules are the tables below.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { checkDependencies, checkLinks } from './check-architecture.ts';
import { circlesOf } from './circles.ts';

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
    drafting: {
      what: 'Guesses the next tokens of texts, and decides how many guesses pay.',
      imports: ['backend', 'sampling', 'evaluate'],
    },
    prompts: { what: 'Turns prompts into token ids.', imports: ['tokenizer', 'chat'] },
    schedule: {
      what: 'Puts requests into shared forwards.',
      imports: ['backend', 'prompts', 'sampling', 'drafting', 'evaluate', 'tokenizer', 'profile'],
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
      ],
    },
    diagnose: {
      what: 'Checks the machine: engine, processors, memory, folders, the hub.',
      imports: ['backend/wasm', 'backend/wasm/threads', 'backend/wasm/choosing', 'backend (types)', 'quant', 'hub'],
    },
    hub: { what: 'Gets models from the Hugging Face hub, into its cache.', imports: ['formats'] },
    evaluation: {
      what: 'Judges models by texts: perplexity, divergence of predictions, where two models part.',
      imports: ['engine', 'plan', 'sampling', 'tokenizer (types)'],
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
      imports: ['quant', 'plan', 'models'],
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
        'backend/wasm/threads (types)',
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

export interface Report {
  readonly problems: readonly string[];
  /** Lines and files per room, for people. */
  readonly summary: string;
}

interface Source {
  /** Relative to the root, with forward slashes. */
  readonly file: string;
  readonly text: string;
  readonly lines: number;
}

const folders = ['src', 'test', 'bench', 'tools', 'examples'];
const skipped = new Set(['node_modules', 'golden', 'dist']);

export function checkHouse(
  root: string,
  { rooms, shared, platform, maxLines, maxArchitectureLines, long }: Rules,
): Report {
  const sources = folders.flatMap((folder) => readSources(root, folder));
  const problems = [
    ...sources.flatMap((source) => (source.file.startsWith('src/') ? arrowsOf(source) : [])),
    ...fileCircles(sources),
    ...roomCircles(),
    ...sources.flatMap(lengthOf),
    ...Object.keys(long).flatMap((file) => (isLong(file) ? [] : [`${file} is listed as long, but is not`])),
    ...checkDependencies(root),
    ...checkLinks(root),
  ];
  return { problems, summary: summarize(sources) };

  function arrowsOf({ file, text }: Source): string[] {
    const inside = file.slice('src/'.length);
    const room = roomOf(inside);
    if (room !== 'surface' && room !== 'shared' && !Object.hasOwn(rooms, room))
      return [`${file}: no such room: ${room}`];
    return importsOf(text).flatMap(({ target, typeOnly }) => {
      const refused = refusal(inside, room, target, typeOnly);
      return refused === undefined ? [] : [`${file} imports ${target}: ${refused}`];
    });
  }

  function refusal(inside: string, room: string, target: string, typeOnly: boolean): string | undefined {
    const portable = !usesPlatform(inside);
    if (target.startsWith('node:')) return portable ? 'the platform belongs into an adapter' : undefined;
    if (!target.startsWith('.')) {
      if (rooms[room]?.packages?.includes(target)) return undefined;
      return `packages of ${room}: ${rooms[room]?.packages?.join(', ') ?? 'none'}`;
    }
    const imported = path.posix.normalize(path.posix.join(path.posix.dirname(inside), target));
    if (imported.startsWith('..')) return 'it is outside src';
    if (portable && !typeOnly && usesPlatform(imported)) return 'it uses the platform';
    const to = roomOf(imported);
    if (to === room || to === 'shared' || room === 'surface') return undefined;
    const allowed = rooms[room]?.imports ?? [];
    if (allowed.includes(to) || (typeOnly && allowed.includes(`${to} (types)`))) return undefined;
    return `${room} may import ${allowed.join(', ') || 'nothing'}`;
  }

  /**
   * Circles of imports between files. Imports of types count too: to read one file of a circle you have to read them
   * all.
   */
  function fileCircles(all: readonly Source[]): string[] {
    const imports = all.map(({ file, text }): [string, string[]] => [
      file,
      importsOf(text).flatMap(({ target }) =>
        target.startsWith('.') ? [path.posix.join(path.posix.dirname(file), target)] : [],
      ),
    ]);
    return circlesOf(new Map(imports)).map((circle) => `import circle: ${circle.join(' -> ')}`);
  }

  function roomCircles(): string[] {
    const imports = Object.entries(rooms).map(([room, { imports }]): [string, string[]] => [
      room,
      imports.map((name) => name.replace(/ \(types\)$/, '')),
    ]);
    return circlesOf(new Map(imports)).map((circle) => `rooms in a circle: ${circle.join(' -> ')}`);
  }

  function usesPlatform(inside: string): boolean {
    return platform.some((place) => (place.endsWith('/') ? inside.startsWith(place) : inside === place));
  }

  function roomOf(inside: string): string {
    if (shared.includes(inside)) return 'shared';
    const folders = inside.split('/').slice(0, -1);
    if (folders.length === 0) return 'surface';
    for (let depth = folders.length; depth > 1; depth--) {
      const nested = folders.slice(0, depth).join('/');
      if (Object.hasOwn(rooms, nested)) return nested;
    }
    return folders[0]!;
  }

  function lengthOf({ file, lines }: Source): string[] {
    const limit = limitOf(file);
    return lines <= limit || Object.hasOwn(long, file) ? [] : [`${file} has ${lines} lines, ${limit} are allowed`];
  }

  function isLong(file: string): boolean {
    return sources.some((source) => source.file === file && source.lines > limitOf(file));
  }

  function limitOf(file: string): number {
    return file.startsWith('src/models/') ? maxArchitectureLines : maxLines;
  }

  function summarize(all: readonly Source[]): string {
    const groups = new Map<string, Source[]>();
    for (const source of all) {
      const folder = source.file.slice(0, source.file.indexOf('/'));
      const group = folder === 'src' ? `src ${roomOf(source.file.slice('src/'.length))}` : folder;
      groups.set(group, [...(groups.get(group) ?? []), source]);
    }
    return [...groups]
      .map(([group, files]) => {
        const longest = files.reduce((a, b) => (b.lines > a.lines ? b : a));
        const lines = files.reduce((sum, source) => sum + source.lines, 0);
        const counts = `${`${lines}`.padStart(6)} lines ${`${files.length}`.padStart(3)} files`;
        const what = rooms[group.replace('src ', '')]?.what;
        const line = `${group.padEnd(26)}${counts}, longest ${longest.lines} ${longest.file}`;
        return what === undefined ? line : `${line}\n    ${what}`;
      })
      .join('\n');
  }
}

function readSources(root: string, folder: string): Source[] {
  const at = path.join(root, folder);
  if (!existsSync(at)) return [];
  return readdirSync(at, { withFileTypes: true }).flatMap((entry): Source[] => {
    const file = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return skipped.has(entry.name) ? [] : readSources(root, file);
    if (!/\.(ts|mjs)$/.test(entry.name)) return [];
    const text = readFileSync(path.join(root, file), 'utf8');
    return [{ file, text, lines: text.split('\n').length - 1 }];
  });
}

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

/** Import and re-export statements, which the formatter starts at the first column, and calls of import(). */
export function importsOf(text: string): Import[] {
  const statements = [...text.matchAll(/^(?:import|export)\s([^'";]*?)\bfrom\s*['"]([^'"]+)['"]/gm)];
  const bare = [
    ...text.matchAll(/^import\s*['"]([^'"]+)['"]/gm),
    ...text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g),
  ];
  return [
    ...statements.map(([, names, target]) => ({ target: target!, typeOnly: namesTypes(names!) })),
    ...bare.map(([, target]) => ({ target: target!, typeOnly: false })),
  ];
}

/** `type { A }`, `{ type A, type B }` */
function namesTypes(names: string): boolean {
  if (/^type\s/.test(names)) return true;
  const list = /^\{([^}]*)\}\s*$/.exec(names)?.[1];
  return list?.split(',').every((name) => /^\s*(type\s.*)?$/s.test(name)) ?? false;
}

if (import.meta.main) {
  const { problems, summary } = checkHouse(path.join(import.meta.dirname, '..'), rules);
  console.log(summary);
  for (const problem of problems) console.error(`error: ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}
