/** Declares `lanewise tune`. */
import type { Command } from 'commander';
import { type TuneFlags, tuneCommand } from './tune.ts';

/** @param command makes a command of a name, a description and examples */
export function addTuneCommand(
  command: (name: string, description: string, examples: readonly string[]) => Command,
  finish: (code: number) => void,
): void {
  command('tune', 'Measure a model on this machine and choose the storage of each weight for a budget.', [
    'lanewise tune ./gpt2 --budget size=100MB --output plan.json && lanewise quantize ./gpt2 gpt2.gguf --to q8_0 --plan plan.json',
    'lanewise tune model.gguf --budget kl=0.02 --calibrate texts.txt --output plan.json',
    'lanewise tune ./gpt2 --output plan.json --html tune.html',
    'lanewise tune ./gpt2 --budget speed --output fast.json && lanewise generate ./gpt2 --plan fast.json',
  ])
    .argument('[model]', 'folder, .gguf or .safetensors file, id of the hub; default: the embedded model')
    .option('--safetensors <id-or-path>', 'instead of MODEL: a path, or an id of the hub')
    .option('--revision <name>', 'a branch, tag or commit of a model at the hub (default: main)')
    .option(
      '--budget <what>',
      'size=157.5MB: least loss in a file of this size; kl=0.05 (of an encoder distance=0.001): smallest file with this loss; speed: fastest; speed,kl=0.05 and speed,size=157.5MB: fastest within (default: kl=0.05, of an encoder distance=0.001)',
    )
    .requiredOption('--output <file>', 'the plan to write: plan.json')
    .option(
      '--calibrate <file>',
      'text to measure with, and to calibrate (docs/calibration.md): errors are then those of calibrated weights (default: some built-in English, and rounding)',
    )
    .option('--tokens <n>', 'tokens of the text to use (default: 512)')
    .option('--samples <n>', 'layers whose loss is measured one by one; the others are predicted (default: 24)')
    .option('--no-times', 'do not measure times, which sizes and losses do not need')
    .option('--fresh', 'measure anew, without the measurements of an earlier run beside the output')
    .option('--force', 'replace an existing plan')
    .option('--threads <n>', 'default: the number of cores')
    .option('--no-revectorize', '128-bit kernels: do not ask V8 for 256-bit ones')
    .option('--quantized <file>', 'also write the model as a .gguf file, stored as planned')
    .option('--html <file>', 'also a page with the curves of loss by size and by speed, which works without a network')
    .option('--json', 'one JSON object')
    .action(async (model: string | undefined, flags: TuneFlags) => finish(await tuneCommand(model, flags)));
}
