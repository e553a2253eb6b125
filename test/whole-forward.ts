/** All rows of a forward at once, for tests of short texts. */
import type { ForwardOptions, Model, NamedRows } from '../src/index.ts';

export async function wholeForward(
  model: Model,
  tokenIds: readonly number[],
  options?: ForwardOptions,
): Promise<NamedRows> {
  const whole: NamedRows = new Map();
  for await (const { tensors } of model.forward(tokenIds, options)) {
    for (const [name, { shape, values }] of tensors) {
      const before = whole.get(name)?.values ?? [];
      const joined = Float32Array.from([...before, ...values]);
      whole.set(name, { shape: [joined.length / shape[1], shape[1]], values: joined });
    }
  }
  return whole;
}
