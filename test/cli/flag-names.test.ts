import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { lanewise } from './run.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

interface Help {
  readonly flags: ReadonlySet<string>;
  /** Command lines in the help. */
  readonly examples: readonly string[];
}

const flagsIn = (text: string): string[] => [...text.matchAll(/(?<![\w-])--[a-z][a-z-]*[a-z]/g)].map(([flag]) => flag);

/** Prints the help of every command as JSON, in one process: starting a process takes longer than printing all. */
const program = `
  const main = process.argv[1];
  const found = {};
  const write = process.stdout.write;
  process.stdout.setMaxListeners(100);
  process.stderr.setMaxListeners(100);
  async function read(words) {
    let out = '';
    process.stdout.write = (text) => { out += text; return true; };
    process.argv = ['node', ...words, '--help'];
    await import(main + '?' + words.join('-'));
    found[words.join(' ')] = out;
    const commands = /^Commands:\\n((?: .*\\n?)*)/m.exec(out)?.[1] ?? '';
    for (const [, name] of commands.matchAll(/^ {2}([a-z]+)/gm)) if (name !== 'help') await read([...words, name]);
  }
  await read([]);
  process.stdout.write = write;
  console.log(JSON.stringify(found));`;

async function readHelp(): Promise<Map<string, Help>> {
  const main = new URL('../../src/cli/main.ts', import.meta.url).href;
  // With `node -e`, commander takes the arguments after the first one.
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program, main]);
  return new Map(
    Object.entries(JSON.parse(stdout) as Record<string, string>).map(([words, out]) => {
      const options = /^Options:\n((?: .*\n?)*)/m.exec(out)![1]!;
      const flags = [...options.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, flag]) => flag!);
      const examples = [...out.matchAll(/^ {2}\$ (.*)$/gm)].map(([, line]) => line!);
      return [words, { flags: new Set([...flags, '--help']), examples }];
    }),
  );
}

const help = await readHelp();
const all = new Set([...help.values()].flatMap(({ flags }) => [...flags]));

/** Flags in `lanewise ...` lines that the command does not have. */
function strangers(line: string): string[] {
  return line.split(/\||&&|;(?![^']*')/).flatMap((part) => {
    const words = /(?:^|\s)(?:npx )?lanewise ((?:[a-z]+ ?)+)/.exec(part)?.[1]?.trim().split(' ');
    if (words === undefined) return [];
    for (let length = words.length; length > 0; length--) {
      const known = help.get(words.slice(0, length).join(' '));
      if (known)
        return flagsIn(part)
          .filter((flag) => !known.flags.has(flag))
          .map((flag) => `${flag}: ${part.trim()}`);
    }
    return [`no such command: ${part.trim()}`];
  });
}

async function filesBelow(folder: string, form: RegExp): Promise<string[]> {
  const entries = await readdir(join(root, folder), { withFileTypes: true, recursive: true });
  return entries.filter((one) => one.isFile() && form.test(one.name)).map((one) => join(one.parentPath, one.name));
}

test('help is read as it stands: commands below commands, their flags and examples', () => {
  assert.ok(help.get('tokenize encode')?.flags.has('--no-special'));
  assert.ok(help.get('generate')?.flags.has('--top-p'));
  assert.ok(!help.get('tokenize encode')?.flags.has('--top-p'));
  assert.ok(help.get('bench')!.examples.length > 3);
  assert.deepEqual(strangers('echo x | lanewise generate --nonsense 3'), [
    '--nonsense: lanewise generate --nonsense 3',
  ]);
});

test('examples of the help give their commands flags that exist', () => {
  const wrong = [...help.values()].flatMap(({ examples }) => examples.flatMap(strangers));
  assert.deepEqual(wrong, []);
});

test('command lines of README and docs have flags that exist', async () => {
  const pages = [join(root, 'README.md'), ...(await filesBelow('docs', /\.md$/))];
  let lines = 0;
  for (const page of pages) {
    const text = (await readFile(page, 'utf8')).replaceAll('\\\n', ' ');
    const fenced = [...text.matchAll(/^```.*\n([\s\S]*?)^```/gm)].flatMap(([, block]) => block!.split('\n'));
    const inline = [...text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/`(lanewise [^`]+)`/g)].map(([, code]) => code!);
    for (const line of [...fenced, ...inline].map((one) => one.replace(/\s#.*$/, ''))) {
      if (!/(?:^|[\s|])lanewise [a-z]/.test(line) || /^(?:import|npm|npx (?!lanewise))/.test(line)) continue;
      lines++;
      assert.deepEqual(strangers(line), [], page);
    }
  }
  assert.ok(lines > 10, `${lines} lines`);
});

/** Flags of other programs that occur in texts. */
const ofOthers = new Set(['--allow-worker', '--cpus', '--v8-options']);

/** Flags of other commands that the texts of a command name, by its file. */
const ofOtherCommands: Readonly<Record<string, readonly string[]>> = {
  'replay.ts': ['--record'],
  'tune.ts': ['--plan', '--to', '--calibrate'],
};

const inCli = (file: string): boolean => /src[/\\]cli[/\\]/.test(file);

/** The command of a file in src/cli; undefined: several. */
const commandOf = (file: string): string[] => {
  const name = /src[/\\]cli[/\\]([a-z]+)(?:-[a-z]+)?\.ts$/.exec(file)?.[1] ?? '';
  const own = [...help.keys()].filter((words) => words.split(' ')[0] === name);
  return file.endsWith('main.ts') ? [] : own;
};

test('texts in the code name flags that exist, those of a command flags of that command', async () => {
  const wrong: string[] = [];
  let found = 0;
  for (const file of await filesBelow('src', /\.ts$/)) {
    // Declarations of commands, and style sheets.
    if (/host-node\.ts$|(?:main|[a-z]+-commands)\.ts$|src[/\\]report[/\\]/.test(file)) continue;
    const code = (await readFile(file, 'utf8')).replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
    const commands = commandOf(file);
    // Texts of the library name options, not flags.
    const known =
      commands.length > 0
        ? new Set(commands.flatMap((words) => [...help.get(words)!.flags]))
        : inCli(file)
          ? all
          : new Set<string>();
    for (const [text] of code.matchAll(/'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`/g)) {
      for (const flag of flagsIn(text)) {
        found++;
        const elsewhere = ofOtherCommands[basename(file)]?.includes(flag) ?? false;
        if (!known.has(flag) && !ofOthers.has(flag) && !elsewhere) wrong.push(`${file}: ${flag}`);
      }
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(found > 40, `${found} flags`);
});

test('errors of the library name options as the command that runs has them', async () => {
  const cases: readonly (readonly [args: readonly string[], first: RegExp])[] = [
    [['plan', '--quantize', 'foo'], /^error: --quantize must be/],
    [['bench', '--policies', 'foo'], /^error: --policies must be/],
    [['quantize', 'no-model', 'x.gguf', '--to', 'foo'], /^error: --to must be/],
    [['generate', '--top-k', '1.5', '--prompt', 'x'], /^error: --top-k must be/],
    [['generate', '--prompt', 'x', '--context-length', '0'], /^error: --context-length must be/],
    [['forward', '--token-ids', '1', '--output', 'x', '--kv-cache', 'q1'], /^error: --kv-cache must be/],
    [['bench', '--threads', '999'], /^error: --threads must be/],
    [['generate', '--prompt', 'word '.repeat(4000)], /shorten it or raise --context-length|the model takes no more/],
  ];
  for (const [args, first] of cases) {
    const { code, err } = await lanewise(args);
    assert.equal(code, 1, args.join(' ').slice(0, 80));
    assert.match(err, first);
    for (const flag of flagsIn(err)) assert.ok(help.get(`${args[0]}`)!.flags.has(flag), `${args[0]}: ${flag}`);
  }
});
