/** `lanewise chat`: a conversation at the terminal. Answers go to stdout, everything else to stderr. */
import { createInterface, type Interface } from 'node:readline';
import type { Conversation } from '../engine/conversation.ts';
import type { Model } from '../engine/model.ts';
import { DEFAULT_CONTEXT, type LoadOptions } from '../engine/options.ts';
import { describeSampling } from '../engine/sampling-defaults.ts';
import { LanewiseError, load, type Message, parseJson, writeAtomically } from '../node.ts';
import { type ChatPrompt, templateOf } from '../prompts/chat.ts';
import type { GenerateResult } from '../schedule/events.ts';
import { type GenerateOptions, validateGenerate } from '../schedule/generation-options.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { readText, unwritable } from './files.ts';
import { draftOptions, type LoadFlags, loadOptions } from './generate.ts';
import { generateOptions, numbers, type SamplingFlags } from './generation-flags.ts';
import { modelPath } from './models.ts';
import { isMessage, readTemplate } from './prompts.ts';
import { type RecordFlags, recorded } from './record.ts';
import {
  flagName,
  inFlags,
  isExpected,
  numberOf,
  print,
  reportError,
  reportingLoad,
  say,
  UsageError,
} from './terminal.ts';
import { type TraceFlags, traced } from './trace.ts';

export interface ChatFlags extends SamplingFlags, LoadFlags, TraceFlags, RecordFlags, ExplainFlag {
  safetensors?: string;
  revision?: string;
  system?: string;
  chatTemplate?: string;
}

const help = `/clear          forget the conversation
/system [TEXT]  show or set what the model is told first
/set NAME VALUE change an option: ${numbers.map((name) => flagName(name).slice(2)).join(', ')}
/show           options, and how long the conversation is
/regen          answer the last message again
/save FILE      write the conversation as JSON
/load FILE      go on with a conversation that was saved
/exit           leave; Ctrl-D does too
A line that ends in \\ goes on in the next one; """ begins and ends a text of several lines. Ctrl-C stops an answer.`;

export function chatCommand(positional: string | undefined, flags: ChatFlags): Promise<number> {
  return traced(flags, (trace) => recorded(flags, positional, (record) => run(positional, flags, { trace, record })));
}

async function run(
  positional: string | undefined,
  flags: ChatFlags,
  observers: Pick<LoadOptions, 'trace' | 'record'>,
): Promise<number> {
  const interrupt = new AbortController();
  const stop = (): void => interrupt.abort(new UsageError('interrupted'));
  process.once('SIGINT', stop);
  try {
    const options = generateOptions(flags);
    validateGenerate(options);
    const template = await readTemplate(flags.chatTemplate);
    // A terminal needs a separate engine thread, so that keys are handled while an answer is computed.
    const inline = !process.stdin.isTTY;
    const path = await modelPath(positional, flags);
    const draft = await draftOptions(flags);
    const loading = reportingLoad({ ...(await loadOptions(flags, interrupt.signal)), ...draft, inline, ...observers });
    await using model = await load(path, loading.options).finally(loading.end);
    process.removeListener('SIGINT', stop);
    sayExplanations(() => model.explain(options), flags);
    // Throws now, not after the first message, if the model has no chat template.
    if (typeof template !== 'object') void templateOf(model.chatFormat, template, undefined);
    using conversation = model.conversation();
    const session = new Session(model, conversation, options, template);
    if (flags.system !== undefined) session.system = flags.system;
    return await converse(session);
  } catch (error) {
    if (interrupt.signal.aborted) return 130;
    throw inFlags(error);
  }
}

/** Reads and answers turns until the input ends. */
async function converse(session: Session): Promise<number> {
  const terminal = process.stdin.isTTY === true;
  const lines = createInterface({ input: process.stdin, output: terminal ? process.stderr : undefined, terminal });
  const ask = (prompt: string): void => {
    if (!terminal) return;
    lines.setPrompt(prompt);
    lines.prompt();
  };
  let left = false;
  const interrupted = (): void => {
    if (session.stop()) return;
    if (terminal) say('\n(/exit or Ctrl-D to leave)');
    else left = true;
    if (terminal) ask('> ');
    else lines.close();
  };
  lines.on('SIGINT', interrupted);
  process.on('SIGINT', interrupted);
  if (terminal) say(`${session.model.name}: /help shows what there is`);
  ask('> ');
  try {
    for await (const turn of turnsOf(lines, () => ask('. '))) {
      if (/^\/(exit|quit|bye)\s*$/.test(turn)) return 0;
      try {
        await session.take(turn);
      } catch (error) {
        if (!isExpected(error)) throw error;
        reportError(inFlags(error));
      }
      ask('> ');
    }
    return left ? 130 : 0;
  } finally {
    process.removeListener('SIGINT', interrupted);
    lines.close();
  }
}

/** Joins lines to turns: `\` at the end of a line, and `"""` around several lines. Empty turns are skipped. */
async function* turnsOf(lines: Interface, more: () => void): AsyncGenerator<string, void, undefined> {
  let turn: string[] = [];
  let quoted = false;
  for await (const line of lines) {
    const continues = !quoted && line.endsWith('\\');
    if (quoted && line.trimEnd().endsWith('"""')) {
      quoted = false;
      turn.push(line.trimEnd().slice(0, -3));
    } else if (!quoted && turn.length === 0 && line.startsWith('"""')) {
      const rest = line.slice(3);
      quoted = !rest.trimEnd().endsWith('"""');
      turn.push(quoted ? rest : rest.trimEnd().slice(0, -3));
    } else turn.push(continues ? line.slice(0, -1) : line);
    if (quoted || continues) {
      more();
      continue;
    }
    const text = turn.join('\n').trim();
    turn = [];
    if (text !== '') yield text;
  }
  const text = turn.join('\n').trim();
  if (text !== '') yield text;
}

class Session {
  readonly model: Model;
  system: string | undefined;
  readonly #conversation: Conversation;
  readonly #options: GenerateOptions;
  readonly #template: ChatPrompt['template'];
  #history: Message[] = [];
  #answering: AbortController | undefined;

  constructor(model: Model, conversation: Conversation, options: GenerateOptions, template: ChatPrompt['template']) {
    this.model = model;
    this.#conversation = conversation;
    this.#options = options;
    this.#template = template;
  }

  /** Stops the current answer. @returns false if there is none */
  stop(): boolean {
    this.#answering?.abort(new UsageError('stopped'));
    return this.#answering !== undefined;
  }

  /** Handles a message or a command. */
  async take(turn: string): Promise<void> {
    const [, command, argument = ''] = /^\/(\w+)\s*(.*)$/s.exec(turn) ?? [];
    if (command === undefined) return this.#say(turn);
    switch (command) {
      case 'clear':
        this.#history = [];
        say('the conversation is forgotten');
        return;
      case 'system':
        if (argument) this.system = argument;
        say(this.system === undefined ? 'no system message' : `system: ${this.system}`);
        return;
      case 'set':
        return this.#set(argument);
      case 'show':
        return this.#show();
      case 'regen':
        return this.#again();
      case 'save':
        await writeAtomically(fileIn(argument), async (handle) =>
          handle.writeFile(`${JSON.stringify({ system: this.system, messages: this.#history }, null, 2)}\n`),
        ).catch((error) => {
          throw unwritable(`/save ${argument}`, error);
        });
        say(`saved ${this.#history.length} messages as ${argument}`);
        return;
      case 'load':
        return this.#load(argument);
      case 'help':
        say(help);
        return;
      default:
        throw new UsageError(`/${command} is not known; /help lists the commands`);
    }
  }

  async #say(text: string): Promise<void> {
    this.#history.push({ role: 'user', content: text });
    try {
      await this.#answer();
    } catch (error) {
      this.#history.pop();
      throw error;
    }
  }

  async #again(): Promise<void> {
    const last = this.#history.findLastIndex(({ role }) => role === 'user');
    if (last < 0) throw new UsageError('there is nothing to answer yet');
    const before = this.#history;
    this.#history = before.slice(0, last + 1);
    try {
      await this.#answer();
    } catch (error) {
      this.#history = before;
      throw error;
    }
  }

  /** Streams an answer and adds it to the history, also the part of an answer that was stopped. */
  async #answer(): Promise<void> {
    const system: Message[] = this.system === undefined ? [] : [{ role: 'system', content: this.system }];
    const prompt: ChatPrompt = { messages: [...system, ...this.#history], template: this.#template };
    const answering = new AbortController();
    this.#answering = answering;
    const options = { ...this.#options, signal: answering.signal, throwOnAbort: false };
    let text = '';
    try {
      for await (const event of this.#conversation.generate(prompt, options)) {
        if (event.type === 'token' || event.type === 'text') await print(event.text);
        if (event.type === 'done') {
          text = event.text;
          await print('\n');
          say(event.finishReason === 'aborted' ? '(stopped)' : summaryOf(event));
          this.#adviseWhenFull(event);
        }
      }
    } catch (error) {
      if (!(error instanceof LanewiseError) || error.code !== 'ContextLengthExceeded') throw error;
      throw new UsageError(`${error.message.split('; ')[0]}; ${this.#remedies()}`);
    } finally {
      this.#answering = undefined;
    }
    this.#history.push({ role: 'assistant', content: text });
  }

  #adviseWhenFull({ finishReason, usage }: GenerateResult): void {
    if (usage.droppedMessages) say(`(the oldest ${usage.droppedMessages} messages are left out)`);
    if (finishReason !== 'contextLength') return;
    const { contextLength } = this.model;
    say(`(the context of ${contextLength} tokens is full: ${this.#remedies()})`);
  }

  /** What the user can do about a full context. */
  #remedies(): string {
    const { contextLength, description } = this.model;
    const most = description.config.contextLength;
    const shift = this.#options.contextShift ? '' : ', --context-shift leaves out the oldest turns';
    const raise =
      contextLength < most
        ? `, --context-length raises the limit${contextLength === DEFAULT_CONTEXT.decoder ? ` (${contextLength} is a default)` : ''} up to ${most}`
        : '';
    return `/clear starts a new conversation${shift}${raise}`;
  }

  #set(argument: string): void {
    const [name = '', ...value] = argument.split(/[\s=]+/);
    const option = numbers.find((known) => flagName(known) === `--${name.replace(/^--/, '')}`);
    if (option === undefined)
      throw new UsageError(
        `/set knows ${numbers.map((known) => flagName(known).slice(2)).join(', ')}, not ${JSON.stringify(name)}`,
      );
    const number = numberOf(`/set ${name}`, value.join(' '));
    validateGenerate({ ...this.#options, [option]: number }, { name: () => `/set ${name}` });
    this.#options[option] = number;
    say(`${name} ${number}`);
  }

  #show(): void {
    const options = numbers.flatMap((name) =>
      this.#options[name] === undefined ? [] : [`${flagName(name).slice(2)} ${this.#options[name]}`],
    );
    say(options.join(', '));
    say(`where not set: ${describeSampling(this.model.samplingDefaults)}`);
    say(
      `${this.#history.length} messages, ${this.#conversation.length} of ${this.model.contextLength} tokens in the cache`,
    );
  }

  async #load(file: string): Promise<void> {
    const { system, messages } = readSaved(await readText('/load', fileIn(file)), file);
    this.system = system;
    this.#history = messages;
    say(`${messages.length} messages from ${file}`);
  }
}

function fileIn(argument: string): string {
  if (argument === '') throw new UsageError('expected the name of a file');
  return argument;
}

function readSaved(text: string, file: string): { system: string | undefined; messages: Message[] } {
  try {
    const { system, messages } = parseJson(text) as { system?: unknown; messages?: unknown };
    if ((system === undefined || typeof system === 'string') && Array.isArray(messages) && messages.every(isMessage)) {
      return { system, messages };
    }
  } catch {
    // Reported below.
  }
  throw new UsageError(
    `/load ${file}: expected {"messages": [{"role": "user", "content": "text"}]}, as /save writes it`,
  );
}

/** `[12 new of 40 tokens read in 0.31 s, 25 written in 1.20 s (20.8 tokens/s)]` */
function summaryOf({ usage, timings, finishReason, tokenIds }: GenerateResult): string {
  const fresh = usage.promptTokens - (usage.cachedTokens ?? 0);
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;
  const rate =
    timings.decodeMs > 0 ? ` (${(((tokenIds.length - 1) / timings.decodeMs) * 1000).toFixed(1)} tokens/s)` : '';
  const ended = finishReason === 'stop' ? '' : `, ended by ${finishReason}`;
  return `[${fresh} new of ${usage.promptTokens} tokens read in ${seconds(timings.prefillMs)}, ${tokenIds.length} written in ${seconds(timings.decodeMs)}${rate}${ended}]`;
}
