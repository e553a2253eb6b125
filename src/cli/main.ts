/** The command line. Results go to stdout, the rest to stderr; exit code 0, 1 after an error, 130 after Ctrl-C. */
import { readFile } from 'node:fs/promises';
import { Command, CommanderError } from 'commander';
import { configureLogging } from '../profile/logtape.ts';
import { renamedOptions } from '../schedule/generation-options.ts';
import { addBenchCommands } from './bench-commands.ts';
import { chatCommand } from './chat.ts';
import {
  commandsOf,
  kvCache,
  modelArgument,
  policyHelp,
  revision,
  safetensors,
  withMachine,
  withReports,
} from './command-flags.ts';
import { demoCommand } from './demo.ts';
import { addDoctorCommand } from './doctor.ts';
import { embedCommand } from './embed.ts';
import { addEvalCommands } from './evaluate-commands.ts';
import { withExplain } from './explain.ts';
import { addFitCommand } from './fit.ts';
import { forwardCommand } from './forward.ts';
import { generateCommand } from './generate.ts';
import { addGenerationFlags, collected } from './generation-flags.ts';
import { downloadCommand, listCommand, removeCommand, verifyCommand } from './hub.ts';
import { inspectCommand } from './inspect.ts';
import { planCommand } from './plan.ts';
import { quantizeCommand, writableTypes } from './quantize.ts';
import { withRecordFlag } from './record.ts';
import { addReplayArguments, replayCommand } from './replay.ts';
import { addServeFlags, serveCommand } from './serve.ts';
import { removeUnfinishedAtSignals } from './signals.ts';
import { planFlag } from './storage-flags.ts';
import { renderCommand } from './template.ts';
import { flagName, inFlags, isExpected, reportError, speakOf, UsageError } from './terminal.ts';
import { tokenizeCommands } from './tokenize-commands.ts';
import { addTuneCommand } from './tune-commands.ts';

async function program(finish: (code: number) => void): Promise<Command> {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  const top = new Command('lanewise').description('Language models in TypeScript.').version(version).exitOverride();
  top.enablePositionalOptions();
  top.configureOutput({ outputError: () => {} });
  top.hook('preAction', (_, { options }) => speakOf(options.flatMap(({ long }) => long ?? [])));
  const command = commandsOf(top);

  withGeneration(
    command('generate', 'Continue a prompt. Only the text goes to stdout.', [
      'lanewise generate --prompt "Once upon a time" --max-tokens 60 --temperature 0',
      'echo "One day, a little" | lanewise generate --seed 7 --timings',
      'lanewise generate ./gpt2 --batch-file prompts.txt --json',
      'lanewise generate org/name --messages conversation.json',
      'lanewise generate --prompt "One day" --seed 7 --inspect tokens.html',
      'lanewise generate --prompt "One day" --trace trace.json',
    ]),
  )
    .argument('[model]', modelArgument)
    .option(...safetensors)
    .option(...revision)
    .option('--prompt <text>', 'the text to continue (default: standard input)')
    .option('--token-ids <ids>', 'token ids instead of text: 1,2,3')
    .option('--batch-file <file>', 'many prompts, one per line (.jsonl: {"prompt": ...} or {"messages": ...})')
    .option('--messages <file>', 'a conversation as JSON: [{"role": "user", "content": "..."}] or {messages, tools}')
    .option('--chat-template <file>', "a Jinja template instead of the model's own, or the name of one of its own")
    .option('--stream', 'write the text as it comes (default)')
    .option('--no-stream', 'write the text at the end')
    .option('--json', 'one JSON object per prompt')
    .option('--timings', 'where the time went, on stderr')
    .option('--inspect <file>', 'a page (.html) on which each token tells how it was chosen')
    .action(async (model, flags) => finish(await generateCommand(model, streamAsked(flags))));

  withGeneration(
    command('chat', 'Talk with a model; /help shows the commands. Answers go to stdout.', [
      'lanewise chat HuggingFaceTB/SmolLM2-135M-Instruct --system "Be brief."',
      'echo "Why is the sky blue?" | lanewise chat ./model',
    ]),
  )
    .argument('[model]', modelArgument)
    .option(...safetensors)
    .option(...revision)
    .option('--system <text>', 'what the model is told first')
    .option('--chat-template <file>', "a Jinja template instead of the model's own, or the name of one of its own")
    .action(async (model, flags) => finish(await chatCommand(model, flags)));

  withExplain(
    withLoading(
      addServeFlags(
        command('serve', "Answer requests of OpenAI's clients (docs/server.md).", [
          'lanewise serve',
          'lanewise serve ./gemma-3-1b-it --port 8081 --api-key secret',
        ]),
      ),
    ),
  ).action(async (models, flags) => finish(await serveCommand(models, flags, version)));

  withReports(
    withMachine(
      command('embed', 'Embed texts with an encoder: one JSON array per line.', [
        'lanewise embed sentence-transformers/all-MiniLM-L6-v2 --text "A cat sat on the mat." --text "Cats like mats."',
        'lanewise embed ./modernbert --file texts.txt --json > embeddings.jsonl',
      ]),
    ),
  )
    .argument('<model>', 'folder, .gguf or .safetensors file, or id of the hub, of an encoder')
    .option(...revision)
    .option('--text <text>', 'a text; may be given again (default: standard input, one text per line)', collected)
    .option('--file <file>', 'a file with one text per line')
    .option('--pooling <how>', "mean, cls, last, max, ... (default: as the model's folder says, else mean)")
    .option('--prompt-name <name>', "put the model's prompt of this name in front of each text")
    .option('--prompt <text>', 'put a text in front of each text')
    .option('--normalize', 'scale to length 1 (default: as the folder says, else yes)')
    .option('--no-normalize', 'do not scale to length 1')
    .option('--truncate', 'cut texts longer than the context (default: if the folder limits the length)')
    .option('--no-truncate', 'fail for texts longer than the context')
    .option('--context-length <n>', "most tokens of a text (default: the model's and its folder's, at most 8192)")
    .option('--quantize <policy>', policyHelp)
    .option(...planFlag)
    .option('--backend <name>', 'wasm or reference')
    .option('--json', '{"text", "tokens", "embedding"} per line')
    .action(async (model, flags) => finish(await embedCommand(model, flags)));

  withExplain(
    withMachine(
      command('forward', 'Logits and hidden states of given tokens as a SafeTensors file.', [
        'lanewise forward ./gpt2 --token-ids 15496,11,995 --output logits.safetensors --hidden',
      ]),
    ),
  )
    .argument('[model]', modelArgument)
    .option(...safetensors)
    .option(...revision)
    .requiredOption('--token-ids <ids>', '1,2,3')
    .requiredOption('--output <file>', 'where to write logits [T, vocab] (and hidden.0 .. hidden.L) as F32')
    .option('--hidden', 'also hidden states after every layer')
    .option('--quantize <policy>', 'default: none')
    .option(...planFlag)
    .option(...kvCache)
    .option('--backend <name>', 'wasm or reference')
    .action(async (model, flags) => finish(await forwardCommand(model, flags)));

  command('plan', 'How each weight is stored, and why. Reads headers only.', [
    'lanewise plan ./gpt2',
    'lanewise plan ./gpt2 --quantize q8_0,attention=none --json',
    'lanewise plan ./gpt2 --plan plan.json --explain',
    'lanewise plan --steps',
  ])
    .argument('[model]', modelArgument)
    .option(...safetensors)
    .option(...revision)
    .option('--quantize <policy>', policyHelp)
    .option(...planFlag)
    .option('--explain', 'why each weight is stored so, with the numbers of a tuned plan (docs/tune.md)')
    .option('--json', 'linear_layers, quantized, weights')
    .option('--steps', 'the steps of a forward')
    .action(async (model, flags) => finish(await planCommand(model, flags)));

  command('quantize', 'Write a model as one file, its weights in other types.', [
    'lanewise quantize ./gpt2 gpt2-q8_0.gguf --to q8_0 --metrics',
    'lanewise quantize model.gguf small.gguf --to q8_0 --policy q4_0,output=q8_0',
    'lanewise quantize model.gguf out/model.safetensors --to f16',
    'lanewise quantize model.gguf small.gguf --to q4_0 --calibrate text.txt',
  ])
    .argument('<input>', 'folder, .safetensors or .gguf file, or an id of the hub')
    .argument('<output>', 'a name that ends in .gguf or .safetensors')
    .option(...revision)
    .requiredOption('--to <type>', `type of the matrices: ${writableTypes.join(', ')}`)
    .option(
      '--policy <policy>',
      'for linear layers, as --quantize elsewhere; layers that it leaves unchanged become --to',
    )
    .option(...planFlag)
    .option(
      '--calibrate <file>',
      'a text that the model computes: matrices are rounded so that their outputs on it stay close',
    )
    .option('--calibrate-tokens <n>', 'most tokens of it that are used (default: 16384)')
    .option('--metrics', 'error of each tensor: mean squared and largest error, signal to noise')
    .option('--force', 'replace an existing output')
    .option('--json', 'one JSON object')
    .action(async (input, output, flags) => finish(await quantizeCommand(input, output, flags)));

  addBenchCommands(command, finish);

  addReplayArguments(
    withMachine(
      command(
        'replay',
        'Run a recording again, and name the first token and layer that differ. Exit code 1 if one does.',
        [
          'lanewise generate ./gpt2 --prompt "One day" --record run.jsonl',
          'lanewise replay run.jsonl',
          'lanewise replay run.jsonl ./gpt2 --threads 1 --json',
        ],
      ),
    ),
  )
    .option(...revision)
    .action(async (file, model, flags) => finish(await replayCommand(file, model, flags)));

  command('inspect', 'Describe a model and the memory it needs. Reads headers only, local or at the hub.', [
    'lanewise inspect HuggingFaceTB/SmolLM2-135M-Instruct',
    'lanewise inspect model.gguf --filter blk.0 --stats',
    'lanewise inspect ./gpt2 --verify',
  ])
    .argument('[model]', modelArgument)
    .option(...revision)
    .option('--tensors', 'the tensors')
    .option('--filter <text>', 'only tensors with this in their name')
    .option('--stats', 'minimum, maximum, mean and standard deviation of the tensors: reads their data')
    .option('--metadata', 'metadata of the file, or config.json')
    .option('--key <key>', 'one value of the metadata')
    .option('--chat-template', 'the text of the chat template')
    .option('--quantize <policy>', 'also memory with this policy')
    .option('--context-length <n>', 'memory for this many positions')
    .option(...kvCache)
    .option('--verify', 'PASS, WARN and FAIL lines; reads everything; exit code 1 on FAIL')
    .option('--json', 'as JSON')
    .action(async (model, flags) => finish(await inspectCommand(model, flags)));

  addDoctorCommand(
    withMachine(
      command(
        'doctor',
        'Check this machine, and with MODEL what a load of it decides. Exit code 1 if there is a fault.',
        ['lanewise doctor', 'lanewise doctor --hub --json', 'lanewise doctor model.gguf --context-length 8192'],
      ),
    )
      .argument('[model]', 'folder, .gguf or .safetensors file, or id of the hub')
      .option(...safetensors)
      .option(...revision)
      .option('--quantize <policy>', policyHelp)
      .option(...planFlag)
      .option('--context-length <n>', 'most positions')
      .option(...kvCache),
    finish,
  );

  addFitCommand(
    withMachine(
      command('fit', 'The memory that a model will take, before any weights are downloaded.', [
        'lanewise fit HuggingFaceTB/SmolLM2-135M-Instruct',
        'lanewise fit model.gguf --context 2k,8k,32k --kv-cache f32,q8_0',
        'lanewise fit ./gpt2 --policies none,q8_0,q4_k --json',
      ]),
    ).argument('[model]', modelArgument),
    finish,
  );

  command('template', 'Chat templates.', ['lanewise template render ./model --jsonl < conversations.jsonl'])
    .command('render')
    .description('Render messages with a chat template.')
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .argument('[model]', 'folder, .gguf file, id of the hub, or a .jinja file')
    .option(...revision)
    .option('--file <file>', 'what to read (default: standard input)')
    .option('--chat-template <name>', 'which of several: default, tool_use ... (default: tool_use if there are tools)')
    .option(
      '--jsonl',
      'reads {"messages", "tools", "add_generation_prompt", "now", ...} per line, writes {"text"} or {"error"} per line',
    )
    .action(async (model, flags) => finish(await renderCommand(model, flags)));

  command('download', 'Download a model from the hub to the cache shared with Python; resumes interrupted downloads.', [
    'lanewise download HuggingFaceTB/SmolLM2-135M-Instruct',
    "lanewise download openai-community/gpt2 --include '*.json' --include model.safetensors",
    'lanewise download org/model-GGUF:Q4_K_M',
  ])
    .argument('<id>', 'organisation/name, organisation/name-GGUF:Q4_K_M, or a link to either')
    .option(...revision)
    .option('--include <glob>', 'only files that match; may be given again', collected)
    .option('--exclude <glob>', 'no files that match; may be given again', collected)
    .option('--json', 'one JSON object')
    .action(async (id, flags) => finish(await downloadCommand(id, flags)));

  command('list', 'Models in the cache.', ['lanewise list', 'lanewise list --json'])
    .option('--json', 'one JSON array')
    .action(async (flags) => finish(await listCommand(flags)));

  command('remove', 'Remove models from the cache.', ['lanewise remove openai-community/gpt2'])
    .argument('<id...>', 'organisation/name')
    .action(async (ids) => finish(await removeCommand(ids)));

  command('verify', 'Read models in the cache and check their hashes. Exit code 1 if one is wrong.', [
    'lanewise verify',
    'lanewise verify openai-community/gpt2 --json',
  ])
    .argument('[id...]', 'default: all')
    .option('--json', 'a JSON object per file')
    .action(async (ids, flags) => finish(await verifyCommand(ids, flags)));

  tokenizeCommands(
    command('tokenize', 'Text to token ids and back, without weights.', [
      'lanewise tokenize encode ./gpt2 --text "Once upon a time"',
      'lanewise tokenize decode ./gpt2 --ids 7454,2402,257,640',
      'lanewise tokenize info model.gguf',
    ]),
    finish,
  );

  addEvalCommands(
    command('eval', 'Judge models by a text: perplexity, divergence of predictions, where two models part.', [
      'lanewise eval perplexity ./gpt2 --text book.txt',
      'lanewise eval kl model-f32.gguf model-q4_k.gguf --text book.txt',
      'lanewise eval compare ./gpt2 --quantize none --quantize-b q4_0 --text book.txt',
    ]),
    finish,
  );

  addTuneCommand(command, finish);

  command('demo', 'The embedded model tells a short story.', ['lanewise demo']).action(async () =>
    finish(await demoCommand()),
  );
  return top;
}

/** Adds the options of sampling and loading. */
function withGeneration(command: Command): Command {
  return withLoading(withRecordFlag(withReports(addGenerationFlags(command)))).option(
    '--parse-special',
    'read control tokens such as <|im_end|> in prompts; otherwise they are text',
  );
}

/** Adds the options of loading a decoder. */
function withLoading(command: Command): Command {
  return withMachine(command)
    .option('--context-length <n>', "most positions (default: the model's, at most 4096)")
    .option('--quantize <policy>', policyHelp)
    .option(...planFlag)
    .option(...kvCache)
    .option(
      '--cache-tokens <n>',
      'tokens whose keys and values are kept, of all texts together (default: see --cache-memory)',
    )
    .option('--cache-memory <bytes>', 'the same in bytes: 800MB, 2GiB (default: at most a quarter of the memory)')
    .option('--draft <model>', 'a smaller model with the same tokens that guesses ahead; the result stays the same')
    .option('--draft-quantize <policy>', 'how the draft model is stored; without --draft: the model itself, stored so')
    .option('--backend <name>', 'wasm or reference');
}

/** Whether `--stream` was given: commander also sets it by default. */
const streamAsked = <F extends { stream?: boolean }>(flags: F): F => ({
  ...flags,
  stream: flags.stream === false ? false : process.argv.includes('--stream') ? true : undefined,
});

async function main(): Promise<void> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // The reader of stdout has closed the pipe.
    if (error.code === 'EPIPE') process.exit(0);
    process.stderr.write(`error: standard output: ${error.message}\n`);
    process.exit(1);
  });
  // A closed stderr must not end the command.
  process.stderr.on('error', () => {});
  removeUnfinishedAtSignals();
  try {
    configureLogging(process.env.LANEWISE_LOG, (text) => process.stderr.write(text));
    const commands = await program((code) => {
      process.exitCode = code;
    });
    await commands.parseAsync();
  } catch (error) {
    process.exitCode = exitCodeOf(error);
  }
}

/** The error for a flag of an earlier version, with its new name. */
function renamedFlag({ code, message }: CommanderError): UsageError | undefined {
  if (code !== 'commander.unknownOption') return undefined;
  for (const [before, { option, unit }] of renamedOptions)
    if (message.includes(`'${flagName(before)}'`))
      return new UsageError(`${flagName(before)} must be given as ${flagName(option)}, in ${unit}`);
  return undefined;
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    // Help was shown because the subcommand is missing.
    if (error.code === 'commander.help') return 1;
    const renamed = renamedFlag(error);
    if (renamed) {
      reportError(renamed);
      return 1;
    }
    process.stderr.write(`${error.message.startsWith('error:') ? '' : 'error: '}${error.message}\n`);
    return 1;
  }
  if (!isExpected(error)) throw error;
  reportError(inFlags(error));
  return error instanceof Error && 'code' in error && error.code === 'Interrupted' ? 130 : 1;
}

await main();
