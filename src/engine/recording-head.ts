/** The first line of a recording: which model was loaded, and how. */
import type { Backend } from '../backend/backend.ts';
import type { ModelDescription } from '../models/index.ts';
import { type Head, VERSION } from '../recording/format.ts';
import type { LoadSettings } from './options.ts';

export interface HeadParts {
  readonly name: string;
  readonly description: ModelDescription;
  readonly backend: Backend;
  readonly contextLength: number;
  readonly quantize: string;
  readonly weights: Readonly<Record<string, string>>;
  readonly settings: LoadSettings;
}

export function recordingHead(parts: HeadParts): Head {
  const { name, description, backend, contextLength, quantize, weights, settings } = parts;
  const { plan, modelType, parameters, config } = description;
  const { layers, dim, vocab } = config;
  const storages = plan.weights.flatMap(({ name, shape, storage, shares }) =>
    shape.length === 2 ? [[name, shares === undefined ? storage : plan.weights[shares]!.storage] as const] : [],
  );
  const states = plan.steps.flatMap((step) =>
    step.op === 'tap' && step.name.startsWith('hidden.') ? [step.name] : [],
  );
  const { source } = settings.record!;
  return {
    recording: 'lanewise',
    version: VERSION,
    ...(source !== undefined && { source }),
    model: { name: name.split(/[\\/]/).at(-1)!, type: modelType, parameters, layers, dim, vocab, weights },
    plan: { version: 1, weights: Object.fromEntries(storages) },
    load: {
      kvCache: settings.kvCache,
      backend: settings.backend,
      contextLength,
      quantize,
      threads: backend.threads,
      vectorBits: backend.vectorBits ?? null,
    },
    states,
  };
}
