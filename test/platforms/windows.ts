/** Checks for Windows: paths, links, locks and line ends. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { HubServer } from '../unit/hub-server.ts';
import type { Machine, Outcome } from './machines.ts';

/** Undefined if the check passed, else the error. */
type Step = () => Promise<string | undefined>;

export function windowsSteps(machine: Machine, { folder, built }: { folder: string; built: string }): [string, Step][] {
  const lanewise = (args: readonly string[], env?: Record<string, string>): Promise<Outcome> =>
    machine.run([machine.path(path.join(built, 'dist/cli/lanewise.js')), ...args], env);
  const model = path.join(built, 'node_modules/lanewise-stories');
  const greedy = ['--temperature', '0', '--max-tokens', '3'];
  const prompt = ['--prompt', 'Once upon a time'];
  const story = ', there was';

  /** Converts to a file of this name and generates from it. */
  const convert = async (file: string): Promise<string | undefined> => {
    const made = await lanewise(['quantize', machine.path(model), machine.path(file), '--to', 'q8_0']);
    if (made.code !== 0) return failed(made);
    const left = readdirSync(path.dirname(file)).filter((name) => name !== path.basename(file));
    if (left.length > 0) return `left behind: ${left.join(', ')}`;
    const { code, out, err } = await lanewise(['generate', machine.path(file), ...prompt, ...greedy]);
    return code === 0 && out.startsWith(story) ? undefined : failed({ code, out, err });
  };

  const converts = async (...names: string[]): Promise<string | undefined> => {
    const file = path.join(folder, ...names);
    mkdirSync(path.dirname(file), { recursive: true });
    return convert(file);
  };

  /** A folder of input files whose lines end as Windows writes them. */
  const withCrlf = (name: string, lines: readonly string[]): string => {
    const file = path.join(folder, name);
    writeFileSync(file, lines.map((line) => `${line}\r\n`).join(''));
    return machine.path(file);
  };

  return [
    ['quantize, into a folder with spaces and umlauts', () => converts('Modelle für Kinder', 'stories.gguf')],
    [
      'a path of more than 260 characters',
      () => converts(...Array.from({ length: 9 }, (_, i) => `${i}`.repeat(30)), 'stories.gguf'),
    ],
    [
      'JSONL with CRLF line ends',
      async () => {
        const file = withCrlf('batch.jsonl', ['{"prompt": "Once upon a time"}', '{"prompt": "One day"}']);
        const { code, out, err } = await lanewise(['generate', '--batch-file', file, '--json', ...greedy]);
        const lines = out.trim().split(/\r?\n/);
        const right = code === 0 && lines.length === 2 && JSON.parse(lines[0]!).text.startsWith(story);
        return right ? undefined : failed({ code, out, err });
      },
    ],
    [
      'messages with CRLF line ends',
      async () => {
        const file = withCrlf('messages.json', ['[', '{"role": "user", "content": "Once upon a time"}', ']']);
        const { code, out, err } = await lanewise(['generate', '--messages', file, ...greedy]);
        return code === 0 && out.trim().length > 0 ? undefined : failed({ code, out, err });
      },
    ],
    [
      'a missing file: one line that names it',
      async () => {
        const { code, err } = await lanewise(['generate', 'C:\\models\\none.gguf', ...prompt]);
        const lines = err.trim().split(/\r?\n/);
        return code !== 0 && lines.length === 1 && err.includes('C:\\models\\none.gguf') ? undefined : err;
      },
    ],
    ['a file that another program has open: replaced, or one line about it', () => locked()],
    ['the cache of the hub, without symbolic links', () => hub()],
  ];

  /** Writes over a file that another process reads meanwhile; Windows may refuse that. */
  async function locked(): Promise<string | undefined> {
    const file = path.join(folder, 'locked', 'stories.gguf');
    mkdirSync(path.dirname(file));
    writeFileSync(file, 'before');
    const started = path.join(folder, 'started');
    const code = `const fs = require('fs'); fs.openSync(${JSON.stringify(machine.path(file))}, 'r+');
      fs.writeFileSync(${JSON.stringify(machine.path(started))}, ''); setInterval(() => {
        if (!fs.existsSync(${JSON.stringify(machine.path(started))})) process.exit(); }, 100);`;
    const holder = machine.run(['-e', code]);
    while (!existsSync(started)) await new Promise((resolve) => setTimeout(resolve, 100));
    const made = await lanewise(['quantize', machine.path(model), machine.path(file), '--to', 'f16', '--force']);
    rmSync(started);
    await holder;
    const left = readdirSync(path.dirname(file)).filter((name) => name !== path.basename(file));
    if (left.length > 0) return `left behind: ${left.join(', ')}`;
    const whole = readFileSync(file).length > 1e6;
    const refused = made.err.trim().split(/\r?\n/).at(-1)!.startsWith('error: ') && !made.err.includes('    at ');
    if (made.code === 0 ? whole : refused && readFileSync(file, 'utf8') === 'before') return undefined;
    return failed(made);
  }

  /** Downloads, lists, verifies, uses and removes a model of a hub on this machine. */
  async function hub(): Promise<string | undefined> {
    const names = readdirSync(model).filter((name) => /\.(json|safetensors)$/.test(name));
    const files = Object.fromEntries(names.map((name) => [name, readFileSync(path.join(model, name))]));
    await using server = await HubServer.start(files);
    // Node's fetch cannot connect under Wine (`connect UNKNOWN`); requests through a proxy go by node:http, which can.
    const env = {
      HF_ENDPOINT: 'http://hub.test',
      HTTP_PROXY: server.origin,
      HF_HUB_CACHE: machine.path(path.join(folder, 'hub')),
      HF_TOKEN: '',
    };
    for (const [args, expected] of [
      [['download', 'org/stories'], ''],
      [['list'], 'org/stories'],
      [['verify', 'org/stories'], ''],
      [['generate', 'org/stories', ...prompt, ...greedy], story],
      [['remove', 'org/stories'], ''],
    ] as const) {
      const { code, out, err } = await lanewise(args, env);
      if (code !== 0 || !out.includes(expected)) return `${args[0]}: ${failed({ code, out, err })}`;
    }
    const left = readdirSync(path.join(folder, 'hub'));
    return left.length === 0 ? undefined : `remove left ${left.join(', ')}`;
  }
}

const failed = ({ code, out, err }: Outcome): string => `exit code ${code}, ${out.trim()} ${err.trim()}`;
