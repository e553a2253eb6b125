/** `lanewise quantize`: writes a model to one file, its weights converted to other types. */
import { readFile, stat } from 'node:fs/promises';
import { mixtureHint, typeName } from '../engine/options.ts';
import { OptionError } from '../errors.ts';
import { type CalibrationText, type QuantizeReport, quantizeModel, type WritableType } from '../node.ts';
import { formatBytes } from '../profile/units.ts';
import { checkWritable } from './files.ts';
import { modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { quantizeOf } from './storage-flags.ts';
import { renderTable } from './table.ts';
import { inFlags, print, say, UsageError } from './terminal.ts';

export interface QuantizeFlags {
  revision?: string;
  to: string;
  policy?: string;
  plan?: string;
  calibrate?: string;
  calibrateTokens?: string;
  metrics?: boolean;
  force?: boolean;
  json?: boolean;
}

export const writableTypes: readonly WritableType[] = [
  'q8_0',
  'q6_k',
  'q5_k',
  'q4_k',
  'iq4_nl',
  'q4_0',
  'f16',
  'bf16',
  'f32',
];

export async function quantizeCommand(input: string, output: string, flags: QuantizeFlags): Promise<number> {
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort(new UsageError('interrupted')));
  const progress = createProgress(process.stderr, 'write');
  const calibrating = createProgress(process.stderr, 'calibrate');
  try {
    const to = writableTypes.find((type) => type === typeName(flags.to));
    if (to === undefined)
      throw new OptionError('--to', `one of ${writableTypes.join(', ')}${mixtureHint(flags.to)}`, flags.to);
    if (!flags.force && (await stat(output).catch(() => undefined)))
      throw new UsageError(`${output} already exists: give another name, or --force to replace it`);
    await checkWritable(output, output);
    const report = await quantizeModel(await modelPath(input, flags), output, {
      to,
      policy: await quantizeOf({ quantize: flags.policy, plan: flags.plan }, '--policy'),
      ...(flags.calibrate !== undefined && { calibrate: await calibrationOf(flags.calibrate, flags.calibrateTokens) }),
      onCalibrated: (done, total) => calibrating.update(4 * done, 4 * total),
      metrics: flags.metrics ?? false,
      force: flags.force ?? false,
      signal: interrupt.signal,
      onProgress: (done, total) => {
        calibrating.end();
        progress.update(done, total);
      },
    });
    progress.end();
    for (const warning of report.warnings) say(`warning: ${warning}`);
    const { size } = await stat(output);
    if (flags.json) await print(`${JSON.stringify(jsonOf(output, size, report))}\n`);
    else if (flags.metrics) await print(metricsTable(report));
    say(`wrote ${output}: ${formatBytes(size)}, ${countsOf(report)}`);
    return 0;
  } catch (error) {
    if (interrupt.signal.aborted) return 130;
    throw inFlags(error instanceof OptionError && error.option === 'output' ? inWords(error) : error);
  } finally {
    progress.end();
  }
}

/** @throws UsageError for a file that cannot be read */
async function calibrationOf(file: string, count: string | undefined): Promise<CalibrationText> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(
      `--calibrate ${file}: expected a text file, ${error.code === 'ENOENT' ? 'found none' : error.message}`,
    );
  });
  const tokens = count === undefined ? undefined : Number(count);
  if (tokens !== undefined && !(Number.isInteger(tokens) && tokens > 0))
    throw new OptionError('--calibrate-tokens', 'a positive integer', count);
  return { text, name: file, tokens };
}

/** `16 tensors Q8_0, 5 F32` */
function countsOf({ tensors }: QuantizeReport): string {
  const counts = new Map<string, number>();
  for (const { dtype } of tensors) counts.set(dtype, (counts.get(dtype) ?? 0) + 1);
  return [...counts].map(([dtype, count], i) => `${count}${i === 0 ? ' tensors' : ''} ${dtype}`).join(', ');
}

function jsonOf(output: string, bytes: number, { tensors, warnings }: QuantizeReport): object {
  return {
    output,
    bytes,
    warnings,
    tensors: tensors.map(({ name, shape, from, dtype, byteLength, reason, error }) => {
      const lost = error();
      const finite = lost && Number.isFinite(lost.signalToNoise);
      return {
        name,
        shape,
        from,
        to: dtype,
        bytes: byteLength,
        reason,
        ...(lost && {
          mse: lost.meanSquaredError,
          max_error: lost.maxAbsoluteError,
          snr_db: finite ? lost.signalToNoise : null,
        }),
      };
    }),
  };
}

function metricsTable({ tensors }: QuantizeReport): string {
  return renderTable(
    [
      { title: 'Tensor' },
      { title: 'Shape', align: 'right' },
      { title: 'From' },
      { title: 'To' },
      { title: 'MSE', align: 'right' },
      { title: 'Max error', align: 'right' },
      { title: 'SNR dB', align: 'right' },
    ],
    tensors.map(({ name, shape, from, dtype, error }) => {
      const { meanSquaredError, maxAbsoluteError, signalToNoise } = error()!;
      const numbers =
        meanSquaredError === 0
          ? ['0', '0', 'exact']
          : [meanSquaredError.toExponential(2), maxAbsoluteError.toExponential(2), signalToNoise.toFixed(1)];
      return [name, shape.join('x'), from, dtype, ...numbers];
    }),
  );
}

/** Renames the library's option `output` in an error to the argument OUT. */
const inWords = ({ message }: OptionError): UsageError => new UsageError(message.replace('output', 'OUT'));
