/** What declarations of commands have in common. */
import type { Command } from 'commander';
import { withExplain } from './explain.ts';
import { withTraceFlag } from './trace.ts';

/** Declares a command of a parent, with its errors and help as all commands have them. */
export type CommandMaker = (name: string, description: string, examples: readonly string[]) => Command;

export const commandsOf =
  (parent: Command): CommandMaker =>
  (name, description, examples) =>
    parent
      .command(name)
      .description(description)
      .exitOverride()
      .configureOutput({ outputError: () => {} })
      .addHelpText('after', `\nExamples:\n${examples.map((line) => `  $ ${line}`).join('\n')}`);

export const modelArgument =
  'folder, .gguf or .safetensors file, id of the hub (org/name, org/name-GGUF:Q4_K_M, a link); default: the embedded model';
export const safetensors = ['--safetensors <id-or-path>', 'instead of MODEL: a path, or an id of the hub'] as const;
export const revision = ['--revision <name>', 'a branch, tag or commit of a model at the hub (default: main)'] as const;
export const policyHelp =
  'none, q8_0, q4_0, iq4_nl, q4_k, q5_k, q6_k, f16, bf16, f32, q8_0:min-dim=1024, with overrides ,ffn=q4_0 (default: q8_0:min-dim=1024; of encoders and GGUF files none)';
export const kvCache = [
  '--kv-cache <storage>',
  'how keys and values are cached: f32, f16 or q8_0 (default: f32)',
] as const;

/** Adds the options for threads and instructions. */
export const withMachine = (command: Command): Command =>
  command
    .option('--threads <n>', 'default: the number of cores')
    .option('--no-revectorize', '128-bit kernels: do not ask V8 for 256-bit ones; the result stays the same');

/** Adds the options that tell what a command did: a trace and its decisions. */
export const withReports = (command: Command): Command => withTraceFlag(withExplain(command));
