/** The command line of `lanewise bench` and its subcommands. */
import { benchCommand } from './bench.ts';
import {
  type CommandMaker,
  commandsOf,
  kvCache,
  modelArgument,
  revision,
  safetensors,
  withMachine,
  withReports,
} from './command-flags.ts';
import { addCrossoverCommand } from './crossover.ts';
import { addRoundsCommand } from './rounds.ts';

export function addBenchCommands(command: CommandMaker, finish: (code: number) => void): void {
  const bench = withReports(
    withMachine(
      command('bench', 'Compare storage policies on this machine, or this Lanewise with another.', [
        'lanewise bench ./gpt2 --policies none,q8_0,q8_0:min-dim=1024',
        "lanewise bench ./gpt2 --policies 'q8_0;q8_0,attention=none'",
        'lanewise bench ./gpt2 --policies q8_0 --kernels --html kernels.html',
        'lanewise bench ./gpt2 --policies q8_0 --save before.json',
        'lanewise bench ./gpt2 --against before.json --threshold 3',
        'git worktree add ../old v0.1.0 && npm ci --prefix ../old',
        'lanewise bench ./gpt2 --policies q8_0 --against ../old',
        'lanewise bench rounds ./gpt2 --html rounds.html',
        'lanewise bench crossover --html crossover.html',
      ]),
    ),
  )
    // Subcommands have options of the same names.
    .enablePositionalOptions()
    .argument('[model]', modelArgument)
    .option(...safetensors)
    .option(...revision)
    .option('--prompt-tokens <n>', 'default: 512, or as many as the context holds')
    .option('--decode-tokens <n>', 'default: 64')
    .option('--repeat <n>', 'turns (default: 5, with --save and --against 12)')
    .option('--policies <list>', 'separated by commas, or by semicolons if policies have overrides; plan.json: a plan')
    .option(...kvCache)
    .option('--kernels', 'also time per kernel, with its rates and its limit (memory or arithmetic)')
    .option('--html <file>', 'with --kernels: one page with rooflines, which works without a network')
    .option('--save <file>', 'save the times of every turn, with the rates of the machine')
    .option(
      '--against <path>',
      'a file of --save: times are scaled by the rates of the machine and compared by rank (Mann-Whitney); or a folder of Lanewise: both take turns and pairs are compared (sign test). Confidence 95 %',
    )
    .option(
      '--threshold <percent>',
      'exit code 1 if something is slower by more than this, with 95 % confidence (default: 5)',
    )
    .option('--json', 'one JSON array')
    .action(async (model, flags) => finish(await benchCommand(model, flags)));
  addRoundsCommand(commandsOf(bench), finish);
  addCrossoverCommand(commandsOf(bench), finish);
}
