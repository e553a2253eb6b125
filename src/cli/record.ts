/** The `--record` option: what `lanewise replay` compares (docs/replay.md). */
import type { Command } from 'commander';
import { type Recording, recordToFile } from '../node.ts';
import type { ModelFlags } from './models.ts';
import { say } from './terminal.ts';

export interface RecordFlags extends ModelFlags {
  record?: string;
}

export const withRecordFlag = (command: Command): Command =>
  command.option('--record <file>', 'record requests, states of layers and tokens; lanewise replay compares every bit');

/** Runs a command with the recording that `--record` names. The file has what was recorded also if the command fails. */
export async function recorded<T>(
  { record: file, safetensors, revision }: RecordFlags,
  positional: string | undefined,
  command: (record: Recording | undefined) => Promise<T>,
): Promise<T> {
  if (file === undefined) return command(undefined);
  const name = positional ?? safetensors ?? '';
  const record = recordToFile(file, revision === undefined ? name : `${name}@${revision}`);
  let result: T;
  try {
    result = await command(record);
  } catch (error) {
    try {
      record.end();
    } catch (second) {
      say(`error: ${(second as Error).message}`);
    }
    throw error;
  }
  record.end();
  return result;
}
