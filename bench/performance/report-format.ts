/** The stored form of a report. */
import type { Machine } from './machine.ts';

export interface Report {
  readonly format: 'lanewise-performance';
  readonly version: 1;
  /** Title of the section, and the name of its files. */
  readonly name: string;
  readonly date: string;
  readonly quick: boolean;
  readonly machine: Machine;
  readonly parts: Readonly<Record<string, PartResult>>;
}

export interface PartResult {
  readonly seconds: number;
  /** JSON that the bench wrote; undefined if it wrote none. */
  readonly result?: unknown;
  /** Why it failed. */
  readonly error?: string;
}
