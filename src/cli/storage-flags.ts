/** The flags that say how weights are stored: a policy or a plan file. */
import { readFile } from 'node:fs/promises';
import { parseStoragePlan, type Quantize } from '../node.ts';
import { UsageError } from './terminal.ts';

export interface QuantizeFlag {
  quantize?: string;
  /** A file. */
  plan?: string;
}

export const planFlag = [
  '--plan <file>',
  'a storage plan instead of a policy: {"version": 1, "weights": {NAME: STORAGE}}, see docs/plans.md',
] as const;

/** @throws UsageError for two ways at once; FormatError for a file that is not a plan */
export async function quantizeOf({ quantize, plan }: QuantizeFlag, flag = '--quantize'): Promise<Quantize | undefined> {
  if (plan === undefined) return quantize;
  if (quantize !== undefined) throw new UsageError(`give ${flag} or --plan, not both`);
  return readPlan(plan);
}

/** A policy, or the plan of a file whose name ends in .json. */
export const policyOrPlan = async (text: string): Promise<Quantize> => (text.endsWith('.json') ? readPlan(text) : text);

const readPlan = async (file: string): Promise<Quantize> => parseStoragePlan(await readFile(file, 'utf8'), file);

/** Splits a list of policies at semicolons, or at commas that do not begin an override. */
export const splitPolicies = (text: string): string[] =>
  text.split(text.includes(';') ? ';' : /,(?![a-z]+=)/).map((part) => part.trim());
