/** `lanewise inspect`: describes a model and its memory needs from its headers, local or at the hub. */
import { freemem } from 'node:os';
import { type Check, Inspection, type TensorStatistics } from '../engine/inspect.ts';
import { validateLoad } from '../engine/options.ts';
import { describeSampling } from '../engine/sampling-defaults.ts';
import { LanewiseError } from '../errors.ts';
import { look } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { modelLine, modelName } from './models.ts';
import { createProgress } from './progress.ts';
import { renderTable } from './table.ts';
import { inFlags, numberOf, print, UsageError } from './terminal.ts';

export interface InspectFlags {
  revision?: string;
  tensors?: boolean;
  filter?: string;
  stats?: boolean;
  metadata?: boolean;
  key?: string;
  chatTemplate?: boolean;
  quantize?: string;
  contextLength?: string;
  kvCache?: string;
  verify?: boolean;
  json?: boolean;
}

/** @returns the exit code: 1 if `--verify` finds a fault */
export async function inspectCommand(model: string | undefined, flags: InspectFlags): Promise<number> {
  const { inspection, remote } = await open(model, flags);
  await using held = inspection;
  if (flags.key !== undefined) return await showKey(held, flags.key, flags.json ?? false);
  if (flags.metadata) return await showMetadata(held, flags.json ?? false);
  if (flags.chatTemplate) {
    if (held.chat instanceof LanewiseError) throw held.chat;
    await print(`${held.chat.template.source}\n`);
    return 0;
  }
  if (flags.verify) return await verify(held, remote, flags.json ?? false);
  if (flags.tensors || flags.stats || flags.filter !== undefined) return await showTensors(held, flags);
  return await showModel(held, flags).catch((error) => {
    throw inFlags(error);
  });
}

async function open(
  given: string | undefined,
  { revision }: InspectFlags,
): Promise<{ inspection: Inspection; remote: boolean }> {
  const { folder, file, remote } = await look(modelName(given, { revision }), { revision });
  return { inspection: await Inspection.open(folder, file), remote };
}

const longestShown = 200;

/** A value in one line: long texts are cut, long lists shown by their length. */
function valueText(value: unknown): string {
  if (ArrayBuffer.isView(value) || Array.isArray(value)) {
    const items = value as unknown as ArrayLike<unknown>;
    if (items.length > 8)
      return `[${Array.from({ length: 3 }, (_, i) => valueText(items[i])).join(', ')}, ...] (${items.length} items)`;
    return `[${Array.from(items, valueText).join(', ')}]`;
  }
  const text = typeof value === 'bigint' ? `${value}` : (JSON.stringify(value) ?? 'undefined');
  return text.length > longestShown ? `${text.slice(0, longestShown)}... (${text.length} characters)` : text;
}

/** Converts values that JSON cannot express. */
const jsonOf = (value: unknown): unknown => {
  if (typeof value === 'bigint') return value.toString();
  return ArrayBuffer.isView(value) ? Array.from(value as unknown as ArrayLike<number | bigint>, jsonOf) : value;
};

async function showKey({ metadata, name }: Inspection, key: string, json: boolean): Promise<number> {
  if (!metadata.has(key))
    throw new UsageError(
      `${name}: expected the key ${key}, which is not among the ${metadata.size} of the file; --metadata lists them`,
    );
  const value = metadata.get(key);
  await print(`${!json && typeof value === 'string' ? value : JSON.stringify(jsonOf(value))}\n`);
  return 0;
}

async function showMetadata({ metadata }: Inspection, json: boolean): Promise<number> {
  const sorted = [...metadata].sort(([a], [b]) => (a < b ? -1 : 1));
  if (json) await print(`${JSON.stringify(Object.fromEntries(sorted.map(([key, value]) => [key, jsonOf(value)])))}\n`);
  else for (const [key, value] of sorted) await print(`${key}: ${valueText(value)}\n`);
  return 0;
}

async function showTensors(inspection: Inspection, { filter = '', stats, json }: InspectFlags): Promise<number> {
  const chosen = inspection.tensors.filter(({ name, origin }) => name.includes(filter) || origin.includes(filter));
  if (chosen.length === 0) {
    const names = `${inspection.tensors.length} tensors; --tensors lists them`;
    throw new UsageError(`${inspection.name}: --filter ${filter} matches none of its ${names}`);
  }
  const rows: { tensor: (typeof chosen)[number]; statistics: TensorStatistics | undefined }[] = [];
  for (const tensor of chosen)
    rows.push({ tensor, statistics: stats ? await inspection.statistics(tensor.name) : undefined });
  if (json) {
    await print(
      `${JSON.stringify(rows.map(({ tensor, statistics }) => ({ ...tensor, ...(statistics && { stats: statistics }) })))}\n`,
    );
    return 0;
  }
  const right = ['Shape', 'Bytes', 'Min', 'Max', 'Mean', 'Deviation', 'Not finite'];
  const titles = ['Tensor', 'Type', 'Shape', 'Bytes', ...(stats ? right.slice(2) : [])];
  const number = (value: number | undefined): string => (value === undefined ? '' : value.toPrecision(4));
  await print(
    renderTable(
      titles.map((title) => ({ title, align: right.includes(title) ? 'right' : 'left' })),
      rows.map(({ tensor: { name, dtype, shape, bytes }, statistics: s }) => [
        name,
        dtype,
        shape.join('x'),
        formatBytes(bytes),
        ...(stats
          ? [number(s?.min), number(s?.max), number(s?.mean), number(s?.deviation), `${s?.notFinite ?? ''}`]
          : []),
      ]),
    ),
  );
  return 0;
}

async function verify(inspection: Inspection, remote: boolean, json: boolean): Promise<number> {
  const progress = createProgress(process.stderr, 'verify');
  const checks: Check[] = [];
  for await (const check of inspection.verify({
    values: !remote,
    onProgress: (done, total) => progress.update(done, total),
  })) {
    progress.end();
    checks.push(check);
    if (!json) await print(`${check.status} ${check.what}\n`);
  }
  if (json) await print(`${JSON.stringify(checks)}\n`);
  return checks.some(({ status }) => status === 'FAIL') ? 1 : 0;
}

async function showModel(inspection: Inspection, flags: InspectFlags): Promise<number> {
  const { name, format, files, tensors, description, tokenizer, chat, sampling } = inspection;
  if (description instanceof LanewiseError) throw description;
  const { config } = description;
  const asked = numberOf('--context-length', flags.contextLength);
  const contexts = [...new Set(asked === undefined ? [512, 4096, config.contextLength] : [asked])].filter(
    (length) => length <= config.contextLength,
  );
  if (contexts.length === 0)
    throw new UsageError(`--context-length must be at most ${config.contextLength}, got ${asked}`);
  contexts.sort((a, b) => a - b);
  const { kvCache } = validateLoad({ kvCache: flags.kvCache as 'f32' | undefined });
  // `availableMemory`, which respects the limits of a container, exists from Node 20.13 on.
  const free = process.availableMemory?.() ?? freemem();
  const sizes = inspection.sizes(flags.quantize === undefined ? [] : [flags.quantize]);
  const fileBytes = tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const memory = sizes.map(({ policy, weightBytes }) => ({
    policy,
    weight_bytes: weightBytes,
    contexts: contexts.map((positions) => {
      const cache_bytes = inspection.cacheBytes(positions, kvCache);
      return { positions, cache_bytes, fits: weightBytes + cache_bytes <= free };
    }),
  }));
  const words = tokenizer instanceof LanewiseError || tokenizer === undefined ? undefined : tokenizer;
  const types = new Map<string, number>();
  for (const { dtype } of tensors) types.set(dtype, (types.get(dtype) ?? 0) + 1);
  if (flags.json) {
    const { modelType, parameters } = description;
    const template = chat instanceof LanewiseError ? null : chat.template.source;
    await print(
      `${JSON.stringify({
        name,
        format,
        files,
        file_bytes: fileBytes,
        architecture: modelType,
        parameters,
        config,
        tensors: tensors.length,
        types: Object.fromEntries(types),
        tokenizer: words
          ? { kind: words.kind, vocab_size: words.vocabSize, special_tokens: words.specialIds.length }
          : null,
        chat_template: template,
        sampling,
        memory,
        free_bytes: free,
      })}\n`,
    );
    return 0;
  }
  const reason = tokenizer instanceof LanewiseError ? tokenizer.message : 'none; the model takes token ids';
  await print(`${modelLine(description)}
${format}, ${files.length} ${files.length === 1 ? 'file' : 'files'}, ${formatBytes(fileBytes)}: ${[...types].map(([type, count]) => `${count} ${type}`).join(', ')}
tokenizer: ${words ? `${words.kind}, ids below ${words.vocabSize}, ${words.specialIds.length} special` : reason}
chat template: ${chat instanceof LanewiseError ? (chat.code === 'NoChatTemplate' ? 'none' : chat.message) : `${chat.template.source.length} characters`}
sampling: ${describeSampling(sampling)}

`);
  const columns = contexts.map((positions) => ({ title: `${positions} tokens`, align: 'right' as const }));
  await print(
    renderTable(
      [{ title: 'Stored as' }, { title: 'Weights', align: 'right' }, ...columns],
      memory.map(({ policy, weight_bytes, contexts: sums }) => [
        policy,
        formatBytes(weight_bytes),
        ...sums.map(({ cache_bytes, fits }) => `${fits ? '' : 'too much: '}+ ${formatBytes(cache_bytes)}`),
      ]),
    ),
  );
  await print(`\n${formatBytes(free)} of memory are free\n`);
  return 0;
}
