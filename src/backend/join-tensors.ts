/** Weights whose values lie in several tensors. */
import type { BackendOptions, TensorData } from './backend.ts';

/** The tensors by name; where a weight's values lie in several, the first stands for all of them. */
export function joinTensors({ plan, tensor }: Pick<BackendOptions, 'plan' | 'tensor'>): BackendOptions['tensor'] {
  const following = new Map(plan.weights.map(({ source }) => [source.tensor, source.following ?? []]));
  return (name) => {
    const first = tensor(name);
    const rest = following.get(name) ?? [];
    return rest.length ? joined([first, ...rest.map(tensor)]) : first;
  };
}

/** Vectors of one length, one after the other. */
function joined(pieces: readonly TensorData[]): TensorData {
  const [first] = pieces as [TensorData];
  const { byteLength } = first;
  return {
    ...first,
    place: first.place && `${first.place} to ${pieces.at(-1)!.place}`,
    shape: [first.shape[0]! * pieces.length],
    byteLength: byteLength * pieces.length,
    inFile: undefined,
    async readInto(start, target) {
      for (let done = 0; done < target.length; ) {
        const [piece, at] = [Math.floor((start + done) / byteLength), (start + done) % byteLength];
        const count = Math.min(byteLength - at, target.length - done);
        await pieces[piece]!.readInto(at, target.subarray(done, done + count));
        done += count;
      }
    },
  };
}
