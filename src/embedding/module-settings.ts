/** Helpers for reading the settings of modules. */
import { ModelError } from '../errors.ts';

export type ModuleSettings = Readonly<Record<string, unknown>>;

/** @param file for messages */
export const unsupported = (file: string, what: string): ModelError =>
  new ModelError('UnsupportedPooling', `${file}: ${what}; name a pooling to use the model without its modules`);

/** A value as JSON, shortened for messages. */
export const shown = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 120);
