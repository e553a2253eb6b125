/** Lanewise as one side of compare.ts: see side.ts for the messages. */
import { PAGE } from '../../src/backend/backend.ts';
import { buildBackend } from '../../src/backend/wasm/backend.ts';
import { portable } from '../../src/backend/wasm/choice.ts';
import { nodeHost } from '../../src/backend/wasm/host-node.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint, readJson } from '../../src/formats/checkpoint.ts';
import { buildModel } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { storageBytes } from '../../src/quant/storage.ts';
import type { Introduction, SideOptions, Turn } from './side.ts';

const { model, threads, promptTokens, decodeTokens, quantize } = JSON.parse(process.argv[2]!) as SideOptions & {
  quantize: string;
};
const folder = nodeFolder(model);
const checkpoint = await openCheckpoint(folder);
const config = await readJson(folder, 'config.json');
const { plan } = buildModel(config, checkpoint.tensors as never, { policy: parsePolicy(quantize) });
const host = nodeHost();
const backend = await buildBackend({
  plan,
  maxRows: 512,
  maxWanted: 1,
  host,
  threads,
  choice: { ...portable, wide: true },
  tensor: (name) => {
    const t = checkpoint.tensors.get(name)!;
    return {
      dtype: t.dtype.toLowerCase() as 'f32',
      shape: t.shape,
      byteLength: t.byteLength,
      readInto: (s, x) => t.readInto(s, x),
    };
  },
});
const context = promptTokens + 2 * decodeTokens + 64;
const pages = Int32Array.from({ length: Math.ceil(context / PAGE) }, (_, i) => i);
backend.ensurePages(pages.length);

async function evaluate(tokens: number[], position: number): Promise<number> {
  const T = tokens.length;
  await backend.forward({
    tokens: Int32Array.from(tokens),
    positions: Int32Array.from(tokens, (_, i) => position + i),
    sequences: new Int32Array(T),
    pages: [pages],
    wanted: Int32Array.of(T - 1),
  });
  const logits = backend.logits(0);
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  return best;
}
async function turn(): Promise<Turn> {
  const prompt = Array.from({ length: promptTokens }, (_, i) => 300 + ((i * 37) % 5000));
  const start = performance.now();
  let next = await evaluate(prompt, 0);
  const prefillMs = performance.now() - start;
  const decodeMs: number[] = [];
  for (let i = 0; i < decodeTokens; i++) {
    const before = performance.now();
    next = await evaluate([next], promptTokens + i);
    decodeMs.push(performance.now() - before);
  }
  return { prefillMs, decodeMs: [decodeMs] };
}
const linear = plan.weights.filter((w) => w.linear);
const introduction: Introduction = {
  bytesPerToken: linear.reduce((sum, { shape, storage }) => sum + shape[0]! * storageBytes(storage, shape[1]!), 0),
  operationsPerToken: linear.reduce(
    (sum, { role, shape }) => sum + (role === 'output' ? 0 : 2 * shape[0]! * shape[1]!),
    0,
  ),
};
process.on('message', async () => process.send!(await turn()));
process.send!(introduction);
