/** The `--trace` option: a timeline of the command for Perfetto (docs/trace.md). */
import type { Command } from 'commander';
import { type Trace, traceToFile } from '../node.ts';
import { say } from './terminal.ts';

export interface TraceFlags {
  trace?: string;
}

export const withTraceFlag = (command: Command): Command =>
  command.option(
    '--trace <file>',
    'write a timeline of load, steps, layers and kernels per thread, for ui.perfetto.dev',
  );

/** Runs a command with the trace that `--trace` names. The file is complete also if the command fails. */
export async function traced<T>(
  { trace: file }: TraceFlags,
  command: (trace: Trace | undefined) => Promise<T>,
): Promise<T> {
  if (file === undefined) return command(undefined);
  const trace = traceToFile(file);
  let result: T;
  try {
    result = await command(trace);
  } catch (error) {
    await trace.end().catch((second: Error) => say(`error: ${second.message}`));
    throw error;
  }
  await trace.end();
  return result;
}
