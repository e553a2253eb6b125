/** Which weights of a plan each tensor of a GGUF file holds. */
import { STACKED } from './file-tensors.ts';
import { type GgufTensors, ggufModel } from './gguf.ts';
import { buildModel } from './index.ts';
import type { StorageChoice } from './policy.ts';

/**
 * Names of weights by tensor.
 * @param policy a plan is checked against the model
 * @throws ModelError for metadata and tensors that make no model; OptionError for a plan of another model
 */
export function weightsByTensor(file: GgufTensors, policy: StorageChoice): Map<string, readonly string[]> {
  const model = ggufModel(file);
  const { plan } = buildModel(model.config, model.tensors, { policy, origin: model.origin });
  const names = new Map<string, string[]>();
  for (const { name, source, shape } of plan.weights) {
    if (shape.length < 2) continue;
    const tensor = model.tensors.get(source.tensor.split(STACKED)[0]!)!.view.source;
    const known = names.get(tensor);
    if (known) known.push(name);
    else names.set(tensor, [name]);
  }
  return names;
}
