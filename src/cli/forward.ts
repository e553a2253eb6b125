/** `lanewise forward`: logits and hidden states of given tokens, as a SafeTensors file. */
import { load, writeSafeTensors } from '../node.ts';
import { checkWritable } from './files.ts';
import { modelPath } from './models.ts';
import { type QuantizeFlag, quantizeOf } from './storage-flags.ts';
import { inFlags, type MachineFlags, machineOptions, reportingLoad, say, tokenIdsOf } from './terminal.ts';

export interface ForwardFlags extends MachineFlags, QuantizeFlag {
  safetensors?: string;
  revision?: string;
  tokenIds: string;
  output: string;
  hidden?: boolean;
  backend?: string;
  kvCache?: string;
}

export async function forwardCommand(positional: string | undefined, flags: ForwardFlags): Promise<number> {
  try {
    const tokenIds = tokenIdsOf(flags.tokenIds);
    await checkWritable(`--output ${flags.output}`, flags.output);
    const loading = reportingLoad({
      ...machineOptions(flags),
      quantize: (await quantizeOf(flags)) ?? 'none',
      taps: flags.hidden ? 'hidden' : undefined,
      backend: flags.backend as 'wasm' | undefined,
      kvCache: flags.kvCache as 'f32' | undefined,
    });
    await using model = await load(await modelPath(positional, flags), loading.options).finally(loading.end);
    const results = await model.forward(tokenIds);
    const tensors = [...results].map(([name, { shape, values }]) => ({
      name,
      dtype: 'F32' as const,
      shape,
      data: new Uint8Array(values.buffer),
    }));
    await writeSafeTensors(flags.output, tensors);
    say(`wrote ${tensors.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).join(', ')} to ${flags.output}`);
    return 0;
  } catch (error) {
    throw inFlags(error);
  }
}
