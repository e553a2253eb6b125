/** Reads prompts from options, files and standard input. */
import { stat } from 'node:fs/promises';
import { ChatTemplate, LanewiseError, type Message, parseJson } from '../node.ts';
import type { Prompt } from '../prompts/prompt.ts';
import type { GenerateOptions } from '../schedule/generation-options.ts';
import { readText } from './files.ts';
import { readRequest } from './requests.ts';
import { tokenIdsOf, UsageError } from './terminal.ts';

export interface PromptFlags {
  prompt?: string;
  tokenIds?: string;
  messages?: string;
  batchFile?: string;
  chatTemplate?: string;
  parseSpecial?: boolean;
}

export interface GivenPrompt {
  /** Absent if the line is invalid. */
  readonly prompt?: Prompt;
  /** Options of the request itself. */
  readonly options?: GenerateOptions;
  /** Error of an invalid line of a batch file. */
  readonly error?: LanewiseError;
  /** Line number in a batch file, from 1. */
  readonly line?: number;
}

/** @throws UsageError */
export async function readPrompts(flags: PromptFlags): Promise<GivenPrompt[]> {
  const given = await readGiven(flags);
  if (!flags.parseSpecial) return given;
  return given.map(({ prompt, ...rest }) =>
    typeof prompt === 'string' ? { prompt: { text: prompt, parseSpecial: true }, ...rest } : { prompt, ...rest },
  );
}

async function readGiven(flags: PromptFlags): Promise<GivenPrompt[]> {
  const { prompt, tokenIds, messages, batchFile } = flags;
  const given = [prompt, tokenIds, messages, batchFile].filter((value) => value !== undefined).length;
  if (given > 1) throw new UsageError('give one of --prompt, --token-ids, --messages and --batch-file');
  const template = await readTemplate(flags.chatTemplate);
  if (template !== undefined && (prompt ?? tokenIds) !== undefined)
    throw new UsageError(
      '--chat-template is for --messages and --batch-file; --prompt and --token-ids are used unchanged',
    );
  if (prompt !== undefined) {
    if (prompt === '') throw new UsageError('--prompt must not be empty');
    return [{ prompt }];
  }
  if (tokenIds !== undefined) return [{ prompt: { tokenIds: tokenIdsOf(tokenIds) } }];
  if (messages !== undefined) {
    const text = await readText('--messages', messages === '-' ? undefined : messages);
    const place = `--messages ${messages}`;
    return [requestIn(text, place, template)];
  }
  if (batchFile !== undefined) return readBatchFile(batchFile, template);
  if (process.stdin.isTTY)
    throw new UsageError('no prompt: use --prompt TEXT, --token-ids, --messages, --batch-file or pipe text in');
  const text = (await readText('--prompt', undefined)).replace(/\r?\n$/, '');
  if (text === '') throw new UsageError('no prompt: standard input is empty; use --prompt TEXT');
  return [{ prompt: text }];
}

/** Reads a template file, or returns the name of one of the model's templates. @throws UsageError */
export async function readTemplate(given: string | undefined): Promise<ChatTemplate | string | undefined> {
  if (given === undefined) return undefined;
  const isName = /^[\w-]+$/.test(given) && !(await stat(given).catch(() => undefined));
  return isName ? given : new ChatTemplate(await readText('--chat-template', given));
}

/** Reads lines of text, or of JSON: `{"prompt": ...}` and `{"messages": ...}`. */
async function readBatchFile(file: string, template: ChatTemplate | string | undefined): Promise<GivenPrompt[]> {
  const lines = (await readText('--batch-file', file))
    .split(/\r?\n/)
    .map((text, index) => ({ text, line: index + 1 }))
    .filter(({ text }) => text.trim() !== '');
  if (lines.length === 0) throw new UsageError(`--batch-file ${file} is empty`);
  if (!file.endsWith('.jsonl') && !lines.every(({ text }) => isRequest(text)))
    return lines.map(({ text, line }) => ({ prompt: text, line }));
  return lines.map(({ text, line }) => {
    try {
      return { ...requestIn(text, `--batch-file ${file}, line ${line}`, template), line };
    } catch (error) {
      if (error instanceof LanewiseError) return { error, line };
      throw error;
    }
  });
}

const requestIn = (text: string, place: string, template: ChatTemplate | string | undefined): GivenPrompt =>
  readRequest(jsonIn(text, place), place, (json) => conversationIn(json, place, template));

/** Whether a line is a JSON request, in a file of any name. */
function isRequest(line: string): boolean {
  if (!/^\s*[{[]/.test(line)) return false;
  try {
    const json: unknown = JSON.parse(line);
    if (Array.isArray(json)) return json.length > 0 && json.every(isMessage);
    return typeof json === 'object' && json !== null && ['prompt', 'messages', 'token_ids'].some((key) => key in json);
  } catch {
    return false;
  }
}

/** Parses JSON. Numbers in messages and tools keep their spelling; others become plain numbers. */
function jsonIn(text: string, place: string): unknown {
  try {
    const [plain, spelled] = [JSON.parse(text), parseJson(text) as Record<string, unknown>];
    if (typeof plain !== 'object' || plain === null || Array.isArray(plain)) return spelled;
    for (const key of ['messages', 'tools']) if (key in plain) plain[key] = spelled[key];
    return plain;
  } catch (error) {
    throw new UsageError(`${place}: invalid JSON: ${(error as Error).message}`);
  }
}

/** Whether a value is a message. Content may be missing only beside tool calls or reasoning. */
export function isMessage(message: unknown): message is Message {
  if (typeof message !== 'object' || message === null) return false;
  const { role, content, ...rest } = message as Record<string, unknown>;
  const { tool_calls: calls, reasoning_content: thought = rest.reasoning ?? rest.thinking } = rest;
  const spoken = typeof content === 'string' || Array.isArray(content);
  const silent = (content ?? null) === null && (Array.isArray(calls) || typeof thought === 'string');
  return typeof role === 'string' && (spoken || silent || (role === 'tool' && typeof content === 'object'));
}

/** Describes why `conversationIn` refuses a conversation. */
function faultIn(messages: unknown): string {
  if (messages === undefined || messages === null) return 'no messages';
  if (!Array.isArray(messages)) return 'messages that are not a list';
  if (messages.length === 0) return 'an empty list of messages';
  const index = messages.findIndex((message) => !isMessage(message));
  if (index < 0) return 'tools that are not a list';
  const message = messages[index] as Record<string, unknown> | null;
  if (typeof message !== 'object' || message === null) return `messages[${index}] that is not an object`;
  return `messages[${index}] without ${typeof message.role === 'string' ? 'content that is text or parts' : 'a role'}`;
}

/** Reads `[{role, content}, ...]` or `{messages, tools}`. */
function conversationIn(json: unknown, place: string, template: ChatTemplate | string | undefined): Prompt {
  const { messages, tools } = (Array.isArray(json) ? { messages: json } : (json ?? {})) as {
    messages?: unknown;
    tools?: unknown;
  };
  if (
    !Array.isArray(messages) ||
    messages.length === 0 ||
    !messages.every(isMessage) ||
    !(tools === undefined || tools === null || Array.isArray(tools))
  ) {
    const alternative = place.startsWith('--batch-file') ? '{"prompt": "text"} or ' : '';
    const expected = `${alternative}{"messages": [{"role": "user", "content": "text"}], "tools": [...]}`;
    throw new UsageError(`${place}: expected ${expected}, found ${faultIn(messages)}`);
  }
  return { messages, tools, template };
}
