/** Layers of models that serve as examples where no model is given. */
import type { ModelLayers } from './crossover.ts';

const layers = (
  model: string,
  rows: readonly (readonly [name: string, inputs: number, out: number, count: number])[],
): ModelLayers[] =>
  rows.map(([name, inputs, out, count]) => ({ model, name, shape: [out, inputs], count, output: name === 'output' }));

export const knownLayers: readonly ModelLayers[] = [
  ...layers('gpt2', [
    ['attention q/k/v/o', 768, 768, 48],
    ['ffn up', 768, 3072, 12],
    ['ffn down', 3072, 768, 12],
    ['output', 768, 50257, 1],
  ]),
  ...layers('gemma3-1b', [
    ['attention q', 1152, 1024, 26],
    ['attention k/v', 1152, 256, 52],
    ['attention o', 1024, 1152, 26],
    ['ffn gate/up', 1152, 6912, 52],
    ['ffn down', 6912, 1152, 26],
    ['output', 1152, 262144, 1],
  ]),
];
