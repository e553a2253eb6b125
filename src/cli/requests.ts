/** Parses JSON requests: a prompt or messages, with options. */

import { OptionError } from '../errors.ts';
import type { Prompt } from '../prompts/prompt.ts';
import {
  type GenerateOptions,
  generateTable,
  optionNames,
  renamedOptions,
  validateGenerate,
} from '../schedule/generation-options.ts';
import { flagName, UsageError } from './terminal.ts';

export interface JsonRequest {
  readonly prompt: Prompt;
  readonly options: GenerateOptions;
}

const contentKeys = ['prompt', 'messages', 'tools', 'system', 'tokenIds', 'parseSpecial'];
/** Without the options that JSON cannot give. */
const options = optionNames.filter((name) => !generateTable[name].programs);

/** Converts `max_tokens`, `max-tokens` and `--max-tokens` to `maxTokens`. */
const camel = (key: string): string =>
  key.replace(/^--/, '').replace(/[-_]+([a-z])/gi, (_, letter) => letter.toUpperCase());

/**
 * @param place file and line of the request, for errors
 * @param conversation reads `{messages, tools}`
 * @throws UsageError, OptionError
 */
export function readRequest(json: unknown, place: string, conversation: (json: unknown) => Prompt): JsonRequest {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    return { prompt: conversation(json), options: {} };
  const given = new Map<string, { key: string; value: unknown }>();
  for (const [key, value] of Object.entries(json)) {
    const name = camel(key);
    const renamed = renamedOptions.get(name);
    if (renamed)
      throw new UsageError(
        `${place}: ${JSON.stringify(key)} must be given as ${flagName(renamed.option).slice(2)}, in ${renamed.unit}`,
      );
    if (!contentKeys.includes(name) && !options.includes(name as keyof GenerateOptions)) {
      const known = [...contentKeys, ...options].map((option) => flagName(option).slice(2)).join(', ');
      throw new UsageError(
        `${place}: ${JSON.stringify(key.slice(0, 80))} is not an option of a request; known are ${known}`,
      );
    }
    const before = given.get(name);
    if (before)
      throw new UsageError(`${place}: ${JSON.stringify(before.key)} and ${JSON.stringify(key)} are the same option`);
    if (value !== null) given.set(name, { key, value });
  }
  const value = (name: string): unknown => given.get(name)?.value;
  const own = Object.fromEntries(options.filter((name) => given.has(name)).map((name) => [name, value(name)]));
  const keyOf = (name: string): string => `${place}: ${given.get(name)?.key ?? name}`;
  validateGenerate(own, { name: keyOf });
  return { prompt: promptOf(value, conversation, keyOf), options: own };
}

function promptOf(
  value: (name: string) => unknown,
  conversation: (json: unknown) => Prompt,
  keyOf: (name: string) => string,
): Prompt {
  const [prompt, tokenIds, messages, system] = ['prompt', 'tokenIds', 'messages', 'system'].map(value);
  const parseSpecial = value('parseSpecial') ?? false;
  if (typeof parseSpecial !== 'boolean') throw new OptionError(keyOf('parseSpecial'), 'true or false', parseSpecial);
  if ([prompt, tokenIds, messages].filter((one) => one !== undefined).length > 1)
    throw new OptionError(keyOf('prompt'), 'given without messages and token ids', prompt ?? tokenIds);
  if (tokenIds !== undefined) {
    if (Array.isArray(tokenIds)) return { tokenIds };
    throw new OptionError(keyOf('tokenIds'), 'a list of token ids such as [1, 2, 3]', tokenIds);
  }
  if (prompt !== undefined) {
    if (typeof prompt === 'string' && prompt !== '') return parseSpecial ? { text: prompt, parseSpecial } : prompt;
    throw new OptionError(keyOf('prompt'), 'a text that is not empty', prompt);
  }
  // The format that /save of a chat writes.
  const first = typeof system === 'string' ? [{ role: 'system', content: system }] : [];
  return conversation({
    messages: Array.isArray(messages) ? [...first, ...messages] : messages,
    tools: value('tools'),
  });
}
