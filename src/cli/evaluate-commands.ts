/** The command line of `lanewise eval`. */
import type { Command } from 'commander';
import { commandsOf, kvCache, modelArgument, policyHelp, revision, withMachine } from './command-flags.ts';
import { divergenceCommand, perplexityCommand } from './evaluate.ts';
import { compareCommand } from './evaluate-compare.ts';
import { withExplain } from './explain.ts';
import { planFlag } from './storage-flags.ts';

export function addEvalCommands(evaluate: Command, finish: (code: number) => void): void {
  const command = commandsOf(evaluate);

  withText(
    withLoading(
      command('perplexity', 'Perplexity on a text: e to the mean loss of its tokens.', [
        'lanewise eval perplexity ./gpt2 --text book.txt',
        'lanewise eval perplexity model.gguf --text book.txt --context-length 2048 --stride 512 --json',
        'cat story.txt | lanewise eval perplexity --quantize none',
      ]).argument('[model]', modelArgument),
    ),
  ).action(async (model, flags) => finish(await perplexityCommand(model, flags)));

  withText(
    withSecond(
      command('kl', 'How far the predictions of B are from those of A: KL(A || B), token by token.', [
        'lanewise eval kl model-f32.gguf model-q4_k.gguf --text book.txt',
        'lanewise eval kl ./gpt2 --quantize none --quantize-b q8_0 --text book.txt --worst 20',
        'lanewise eval kl ./gpt2 --kv-cache-b q8_0 --text book.txt --json',
      ]),
    ),
  )
    .option('--worst <n>', 'how many of the tokens with the largest divergence are listed (default: 10)')
    .action(async (a, b, flags) => finish(await divergenceCommand(a, b, flags)));

  withSecond(
    command('compare', 'Where the forwards of A and B part: layer, step and token. Exit code 1 if they do.', [
      'lanewise eval compare ./gpt2 ./gpt2-finetuned --text book.txt --html differences.html',
      'lanewise eval compare ./gpt2 --quantize none --quantize-b q4_0 --text book.txt --tolerance 0.1',
      'lanewise eval compare model.gguf --backend-b reference --max-tokens 16 --tolerance 1e-4 --text book.txt',
    ]),
  )
    .option('--text <file>', 'a file whose text both read (default: standard input)')
    .option('--max-tokens <n>', 'only so many tokens from the beginning of the text (default: 256)')
    .option('--tolerance <x>', 'relative error of a row, |a - b| / |a|, from which on they part (default: 0.01)')
    .option('--html <file>', 'write a page with plots')
    .option('--json', 'one JSON object')
    .action(async (a, b, flags) => finish(await compareCommand(a, b, flags)));
}

/** Adds the options of the text. */
const withText = (command: Command): Command =>
  command
    .option('--text <file>', 'a file with the text (default: standard input)')
    .option('--context-length <n>', "most tokens of a window (default: the model's context, at most 4096)")
    .option('--stride <n>', 'tokens from window to window; the rest of a window is context (default: half a window)')
    .option('--max-tokens <n>', 'only so many tokens from the beginning of the text')
    .option('--json', 'one JSON object');

/** Adds the options of loading one model. */
const withLoading = (command: Command): Command =>
  withMachine(
    withExplain(command)
      .option(...revision)
      .option('--quantize <policy>', policyHelp)
      .option(...planFlag)
      .option(...kvCache)
      .option('--backend <name>', 'wasm or reference'),
  );

/** Adds two models, the options of loading both, and those of loading B. */
const withSecond = (command: Command): Command =>
  withLoading(command.argument('[a]', modelArgument).argument('[b]', 'the other model (default: A, loaded otherwise)'))
    .option('--quantize-b <policy>', 'the policy of B alone')
    .option('--plan-b <file>', 'the storage plan of B alone')
    .option('--kv-cache-b <storage>', 'the cache of B alone')
    .option('--backend-b <name>', 'the backend of B alone')
    .option('--threads-b <n>', 'the threads of B alone');
