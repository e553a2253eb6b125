/** `lanewise plan`: shows how a model would be stored, from its headers. */
import { describeModel, type ModelDescription, printPlan } from '../node.ts';
import { linearLayers, modelLine, modelPath, storageLine } from './models.ts';
import { explainedWeights, renderExplained, tunedLine } from './plan-explain.ts';
import { type QuantizeFlag, quantizeOf } from './storage-flags.ts';
import { renderStorageTable } from './storage-table.ts';
import { inFlags, print, say } from './terminal.ts';

export interface PlanFlags extends QuantizeFlag {
  safetensors?: string;
  revision?: string;
  json?: boolean;
  steps?: boolean;
  explain?: boolean;
}

export async function planCommand(positional: string | undefined, flags: PlanFlags): Promise<number> {
  const path = await modelPath(positional, flags);
  const quantize = await quantizeOf(flags);
  const description = await describeModel(path, quantize).catch((error) => {
    throw inFlags(error);
  });
  const layers = linearLayers(description);
  if (flags.explain) {
    const explained = explainedWeights(description, quantize);
    if (flags.json) {
      const tuned = typeof quantize === 'object' ? quantize.tuned : undefined;
      await print(
        `${JSON.stringify({ bytes: weightBytes(description), weights: explained, ...(tuned && { tuned }) })}\n`,
      );
      return 0;
    }
    say(modelLine(description));
    await print(renderExplained(explained));
    const line = tunedLine(quantize);
    if (line !== undefined) say(line);
    return 0;
  }
  if (flags.json) {
    const weights = description.plan.weights.map(({ name, role, shape, storage, reason, bytes }) => ({
      name,
      role,
      in: shape[1] ?? shape[0],
      out: shape[0],
      stored: storage,
      reason,
      bytes,
    }));
    const quantized = layers.filter((layer) => layer.quantized).length;
    await print(
      `${JSON.stringify({ linear_layers: layers.length, quantized, bytes: weightBytes(description), weights })}\n`,
    );
    return 0;
  }
  if (flags.steps) {
    await print(printPlan(description.plan));
    return 0;
  }
  say(modelLine(description));
  await print(`${renderStorageTable(layers)}\n`);
  say(`${storageLine(description)}; ${(weightBytes(description) / 1e6).toFixed(1)} MB of weights in total`);
  return 0;
}

const weightBytes = ({ plan }: ModelDescription): number => plan.weights.reduce((sum, { bytes }) => sum + bytes, 0);
