/** The command line of `lanewise tokenize`. */
import type { Command } from 'commander';
import { decodeCommand, encodeCommand, infoCommand } from './tokenize.ts';

const modelArgument = [
  '[model]',
  'folder, tokenizer.json, tekken.json, SentencePiece .model, .gguf file or id of the hub; default: the embedded model',
] as const;

export function tokenizeCommands(tokenize: Command, finish: (code: number) => void): void {
  const command = (name: string, description: string): Command =>
    tokenize
      .command(name)
      .description(description)
      .exitOverride()
      .configureOutput({ writeErr: () => {} })
      .argument(...modelArgument)
      .option('--revision <name>', 'a branch, tag or commit of a model at the hub (default: main)');

  command('encode', 'Text to ids: 1,2,3.')
    .option('--text <text>', 'the text (default: standard input without its last line feed)')
    .option('--file <file>', 'a file, unchanged')
    .option('--no-special', 'without the tokens that the model expects around a text')
    .option('--parse-special', 'read control tokens such as <|im_end|>; otherwise they are text')
    .option('--jsonl', 'reads a JSON string per line, writes {"ids", "tokens"} per line')
    .option('--json', '{"ids", "tokens"}')
    .action(async (model, flags) => finish(await encodeCommand(model, flags)));

  command('decode', 'Ids to text.')
    .option('--ids <ids>', '1,2,3 (default: standard input)')
    .option('--file <file>', 'a file of ids')
    .option('--no-special', 'without control tokens')
    .option('--jsonl', 'reads a JSON list of ids per line, writes {"text"} per line')
    .option('--json', '{"text"}')
    .action(async (model, flags) => finish(await decodeCommand(model, flags)));

  command('info', 'Kind, size and special tokens.')
    .option('--json', 'one JSON object')
    .action(async (model, flags) => finish(await infoCommand(model, flags)));
}
