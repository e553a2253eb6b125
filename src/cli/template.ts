/** `lanewise template render`: renders messages with a chat template, without loading weights. */

import { LanewiseError } from '../errors.ts';
import { type ChatFormat, type Message, openChatTemplate, parseJson, type Tool } from '../node.ts';
import { templateOf } from '../prompts/chat.ts';
import { openLines } from './files.ts';
import { modelName } from './models.ts';
import { inFlags, print, UsageError } from './terminal.ts';

export interface TemplateFlags {
  revision?: string;
  file?: string;
  jsonl?: boolean;
  chatTemplate?: string;
}

/**
 * With --jsonl, reads `{"messages": ...}` per line and prints `{"text"}` or `{"error"}` per line; otherwise renders one
 * JSON text.
 */
export async function renderCommand(model: string | undefined, flags: TemplateFlags): Promise<number> {
  const format = await openChatTemplate(modelName(model, flags), flags);
  if (flags.file === undefined && process.stdin.isTTY)
    throw new UsageError('nothing to read: use --file or pipe {"messages": [...]} in');
  const lines = await openLines('--file', flags.file);
  if (!flags.jsonl) {
    let whole = '';
    for await (const line of lines) whole += `${line}\n`;
    await print(render(format, flags.chatTemplate, whole));
    return 0;
  }
  for await (const line of lines) {
    if (line.trim() === '') continue;
    let answer: { text: string } | { error: string };
    try {
      answer = { text: render(format, flags.chatTemplate, line) };
    } catch (error) {
      if (!(error instanceof LanewiseError)) throw error;
      answer = { error: (inFlags(error) as Error).message };
    }
    await print(`${JSON.stringify(answer)}\n`);
  }
  return 0;
}

interface Line {
  readonly messages?: unknown;
  readonly tools?: Tool[] | null;
  readonly add_generation_prompt?: boolean;
  readonly continue_final_message?: boolean;
  readonly bos_token?: string | null;
  readonly eos_token?: string | null;
  readonly now?: string;
  readonly [variable: string]: unknown;
}

function render(format: ChatFormat, name: string | undefined, text: string): string {
  let line: Line;
  try {
    const json = parseJson(text);
    line = Array.isArray(json) ? { messages: json } : (json as Line);
  } catch (error) {
    throw new UsageError(`invalid JSON: ${(error as Error).message}`);
  }
  if (typeof line !== 'object' || line === null) throw new UsageError('expected {"messages": [...]}');
  const { messages, tools, add_generation_prompt, continue_final_message, bos_token, eos_token, now, ...variables } =
    line;
  if (now !== undefined && (typeof now !== 'string' || Number.isNaN(Date.parse(now))))
    throw new UsageError(`now must be a time such as 2025-02-03T04:05:06, got ${JSON.stringify(now)}`);
  const { bosToken, eosToken, specialTokens } = format;
  return templateOf(format, name, tools).render(messages as Message[], {
    tools,
    addGenerationPrompt: add_generation_prompt ?? false,
    continueFinalMessage: continue_final_message ?? false,
    bosToken: bos_token === undefined ? bosToken : bos_token,
    eosToken: eos_token === undefined ? eosToken : eos_token,
    specialTokens,
    now: now === undefined ? undefined : new Date(now),
    variables,
  }).text;
}
