/** `lanewise forward`: logits and hidden states of given tokens, as a SafeTensors file. */
import { load, writeSafeTensorsParts } from '../node.ts';
import { type ExplainFlag, sayExplanations } from './explain.ts';
import { checkWritable } from './files.ts';
import { modelPath } from './models.ts';
import { createProgress } from './progress.ts';
import { type QuantizeFlag, quantizeOf } from './storage-flags.ts';
import { inFlags, type MachineFlags, machineOptions, reportingLoad, say, tokenIdsOf } from './terminal.ts';

export interface ForwardFlags extends MachineFlags, QuantizeFlag, ExplainFlag {
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
    sayExplanations(() => model.explain(), flags);
    const { dim, vocab, layers } = model.description.config;
    const hidden = flags.hidden ? Array.from({ length: layers + 1 }, (_, i) => `hidden.${i}`) : [];
    const tensors = [...hidden, 'logits'].map((name) => ({
      name,
      dtype: 'F32' as const,
      shape: [tokenIds.length, name === 'logits' ? vocab : dim],
    }));
    // Before the file is begun: an error of the tokens must not leave one.
    const chunks = model.forward(tokenIds, { taps: hidden });
    const progress = createProgress(process.stderr, 'forward', { unit: 'tokens' });
    await writeSafeTensorsParts(flags.output, tensors, async (write) => {
      for await (const { start, count, tensors: rows } of chunks) {
        for (const [name, { shape, values }] of rows)
          await write(name, start * shape[1] * 4, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
        progress.update(start + count, tokenIds.length);
      }
    }).finally(() => progress.end());
    say(`wrote ${tensors.map(({ name, shape }) => `${name} [${shape.join(', ')}]`).join(', ')} to ${flags.output}`);
    return 0;
  } catch (error) {
    throw inFlags(error);
  }
}
