/** `lanewise tokenize encode | decode | info`: text to token ids and back, without loading weights. */
import { openTokenizer, type Tokenizer } from '../node.ts';
import { openLines, readText } from './files.ts';
import { type ModelFlags, modelName } from './models.ts';
import { renderTable } from './table.ts';
import { print, UsageError } from './terminal.ts';

export interface TokenizeFlags {
  revision?: string;
  text?: string;
  file?: string;
  ids?: string;
  special: boolean;
  parseSpecial?: boolean;
  jsonl?: boolean;
  json?: boolean;
}

/** Most special tokens that `info` lists. */
const SHOWN_SPECIAL = 20;

const tokenizerOf = async (model: string | undefined, flags: ModelFlags): Promise<Tokenizer> =>
  openTokenizer(modelName(model, flags), flags);

export async function encodeCommand(model: string | undefined, flags: TokenizeFlags): Promise<number> {
  const tokenizer = await tokenizerOf(model, flags);
  const encode = (text: string): { ids: number[]; tokens: (string | undefined)[] } => {
    const ids = tokenizer.encode(text, { addSpecial: flags.special, parseSpecial: flags.parseSpecial ?? false });
    return { ids, tokens: ids.map((id) => tokenizer.token(id)) };
  };
  if (flags.jsonl) return eachLine(flags, (value) => encode(textIn(value)));
  const encoded = encode(await input(flags));
  await print(`${flags.json ? JSON.stringify(encoded) : encoded.ids.join(',')}\n`);
  return 0;
}

export async function decodeCommand(model: string | undefined, flags: TokenizeFlags): Promise<number> {
  const tokenizer = await tokenizerOf(model, flags);
  const decode = (ids: readonly number[]): { text: string } => {
    const unknown = ids.find((id) => tokenizer.token(id) === undefined);
    if (unknown !== undefined) throw new UsageError(`no token has the id ${unknown}`);
    return { text: tokenizer.decode(ids, { skipSpecial: !flags.special }) };
  };
  if (flags.jsonl) return eachLine(flags, (value) => decode(idsIn(value)));
  const { text } = decode(idsOf(flags.ids ?? (await input(flags))));
  await print(`${flags.json ? JSON.stringify({ text }) : text}\n`);
  return 0;
}

export async function infoCommand(
  model: string | undefined,
  flags: Pick<TokenizeFlags, 'json' | 'revision'>,
): Promise<number> {
  const tokenizer = await tokenizerOf(model, flags);
  const { kind, vocabSize, specialIds } = tokenizer;
  const special = specialIds.map((id) => ({ id, token: tokenizer.token(id)! }));
  if (flags.json) {
    await print(`${JSON.stringify({ kind, vocab_size: vocabSize, special_tokens: special })}\n`);
    return 0;
  }
  await print(`${kind}, ids below ${vocabSize}, ${special.length} special tokens\n`);
  const rows = special.slice(0, SHOWN_SPECIAL).map(({ id, token }) => [`${id}`, JSON.stringify(token)]);
  if (rows.length) await print(renderTable([{ title: 'id', align: 'right' }, { title: 'special token' }], rows));
  if (special.length > rows.length) await print(`and ${special.length - rows.length} more\n`);
  return 0;
}

/** The text of --text, of --file unchanged, or of standard input without its final line feed. */
async function input({ text, file }: TokenizeFlags): Promise<string> {
  if (text !== undefined && file !== undefined) throw new UsageError('give --text or --file, not both');
  if (text !== undefined) return text;
  if (file !== undefined) return readText('--file', file);
  if (process.stdin.isTTY) throw new UsageError('nothing to read: use --text, --file or pipe it in');
  return (await readText('--file', undefined)).replace(/\r?\n$/, '');
}

/** Reads a JSON value per line and prints the answer to each as a line of JSON. */
async function eachLine({ text, file }: TokenizeFlags, answer: (value: unknown) => object): Promise<number> {
  if (text !== undefined) throw new UsageError('--jsonl reads --file or standard input, not --text');
  let number = 0;
  for await (const line of await openLines('--file', file)) {
    number++;
    if (line.trim() === '') continue;
    try {
      await print(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
    } catch (error) {
      throw new UsageError(`line ${number}: ${(error as Error).message}`);
    }
  }
  return 0;
}

function textIn(value: unknown): string {
  if (typeof value !== 'string') throw new UsageError(`expected a text in quotes, found ${shown(value)}`);
  return value;
}

function idsIn(value: unknown): number[] {
  if (!Array.isArray(value) || !value.every((id) => Number.isSafeInteger(id) && id >= 0)) {
    throw new UsageError(`expected a list of ids such as [1,2,3], found ${shown(value)}`);
  }
  return value;
}

const shown = (value: unknown): string => JSON.stringify(value).slice(0, 80);

/** Parses `1,2,3`, `[1, 2, 3]` or `1 2 3`. */
function idsOf(text: string): number[] {
  const words = text.replace(/^\s*\[|\]\s*$/g, '').split(/[\s,]+/);
  return idsIn(words.filter((word) => word !== '').map((word) => (/^\d+$/.test(word) ? Number(word) : word)));
}
