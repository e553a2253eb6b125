/** Checksums of a model's weights: they tell apart models, and name a weight whose bytes were damaged. */
import type { BackendOptions, TensorData } from '../backend/backend.ts';
import { Checksum } from '../backend/checksum.ts';
import { joinTensors } from '../backend/join-tensors.ts';
import { storageBytes } from '../quant/storage.ts';
import { hexadecimal } from './recorder.ts';

/** Bytes per read. */
const PIECE = 4 * 2 ** 20;

/** The checksum of each weight's tensor, as the file has it. Reads the weights once more. */
export async function weightChecksums(
  options: Pick<BackendOptions, 'plan' | 'tensor' | 'signal'>,
): Promise<Record<string, string>> {
  const tensors = joinTensors(options);
  const sums = new Map<string, string>();
  const target = new Uint8Array(PIECE);
  for (const { source, shares } of options.plan.weights) {
    if (shares !== undefined || sums.has(source.tensor)) continue;
    options.signal?.throwIfAborted();
    sums.set(source.tensor, await checksumOf(tensors(source.tensor), target));
  }
  return Object.fromEntries(
    options.plan.weights.flatMap(({ name, source, shares }) =>
      shares === undefined ? [[name, sums.get(source.tensor)!] as const] : [],
    ),
  );
}

/** Bytes that are read: of blocks, or of values. */
const byteLengthOf = ({ blocks, shape, byteLength }: TensorData): number =>
  blocks
    ? storageBytes(
        blocks.storage,
        shape.reduce((product, size) => product * size, 1),
      )
    : byteLength;

async function checksumOf(tensor: TensorData, target: Uint8Array): Promise<string> {
  const blocks = tensor.blocks ?? tensor;
  const bytes = byteLengthOf(tensor);
  const sum = new Checksum();
  for (let start = 0; start < bytes; start += target.length) {
    const piece = target.subarray(0, Math.min(target.length, bytes - start));
    await blocks.readInto(start, piece);
    sum.add(piece);
  }
  return hexadecimal(sum.value);
}
