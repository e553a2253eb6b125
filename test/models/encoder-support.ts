/** Golden encoders through a backend: texts in one forward, hidden states of each. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { type Backend, PAGE } from '../../src/backend/backend.ts';
import { type OpenModel, openModel } from '../../src/engine/open.ts';
import { nodeFolder } from '../../src/formats/adapters/node.ts';
import { openCheckpoint } from '../../src/formats/checkpoint.ts';
import { buildModel, type ModelDescription } from '../../src/models/index.ts';
import { parsePolicy } from '../../src/models/policy.ts';
import { tapped } from '../../src/plan/taps.ts';
import type { MakeBackend } from './support.ts';

export const encoderFolder = (name: string): string =>
  fileURLToPath(new URL(`../golden/encoders/${name}`, import.meta.url));

/** A text with what transformers makes of it. */
export interface GoldenText {
  /** Two texts are a pair. */
  readonly text: string | readonly [string, string];
  readonly ids: Int32Array;
  readonly types: Int32Array;
  /** hidden.0 .. hidden.L, last_hidden_state, embedding, cls. */
  readonly tensors: ReadonlyMap<string, Float32Array>;
}

export async function readGoldenTexts(name: string): Promise<GoldenText[]> {
  const folder = encoderFolder(name);
  const { texts } = JSON.parse(await readFile(`${folder}/expected.json`, 'utf8')) as {
    texts: Pick<GoldenText, 'text'>[];
  };
  const checkpoint = await openCheckpoint(nodeFolder(folder), 'expected.safetensors');
  const read = async (key: string): Promise<ArrayBuffer> => {
    const tensor = checkpoint.tensors.get(key)!;
    const bytes = new Uint8Array(tensor.byteLength);
    await tensor.readInto(0, bytes);
    return bytes.buffer;
  };
  const golden: GoldenText[] = [];
  for (const [n, { text }] of texts.entries()) {
    const names = [...checkpoint.tensors.keys()].filter((key) => key.startsWith(`${n}.`) && !key.endsWith('_ids'));
    const tensors = new Map<string, Float32Array>();
    for (const key of names) tensors.set(key.slice(`${n}.`.length), new Float32Array(await read(key)));
    const [ids, types] = [await read(`${n}.input_ids`), await read(`${n}.token_type_ids`)];
    golden.push({ text, ids: new Int32Array(ids), types: new Int32Array(types), tensors });
  }
  await checkpoint.close();
  return golden;
}

export class EncoderRunner {
  readonly model: ModelDescription;
  readonly #backend: Backend;
  readonly #files: OpenModel;

  private constructor(model: ModelDescription, backend: Backend, files: OpenModel) {
    this.model = model;
    this.#backend = backend;
    this.#files = files;
  }

  static async open(name: string, make: MakeBackend, quantize = 'none'): Promise<EncoderRunner> {
    const files = await openModel(nodeFolder(encoderFolder(name)));
    const built = buildModel(files.config, files.tensors, { policy: parsePolicy(quantize) });
    const model = { ...built, plan: tapped(built.plan, 'hidden') };
    const tensor = files.tensor.bind(files);
    return new EncoderRunner(model, await make({ plan: model.plan, maxRows: 256, maxWanted: 1, tensor }), files);
  }

  /** One forward; of each text hidden.0 .. hidden.L and last_hidden_state. Pages are taken in falling order. */
  async run(texts: readonly Pick<GoldenText, 'ids' | 'types'>[]): Promise<Map<string, Float32Array>[]> {
    let free = texts.reduce((sum, { ids }) => sum + Math.ceil(ids.length / PAGE), 0);
    await this.#backend.cache.ensure(free);
    const join = (of: (text: (typeof texts)[number], index: number) => Int32Array): Int32Array =>
      Int32Array.from(texts.flatMap((text, index) => [...of(text, index)]));
    const results = await this.#backend.forward({
      tokens: join(({ ids }) => ids),
      types: join(({ types }) => types),
      positions: join(({ ids }) => ids.map((_, i) => i)),
      sequences: join(({ ids }, index) => ids.map(() => index)),
      pages: texts.map(({ ids }) => Int32Array.from({ length: Math.ceil(ids.length / PAGE) }, () => --free)),
      wanted: new Int32Array(0),
    });
    const { plan, config } = this.model;
    const taps = plan.steps.flatMap((step) =>
      step.op === 'tap' ? [[step.name, results.tap(step.name)] as const] : [],
    );
    let row = 0;
    return texts.map(({ ids }) => {
      const [from, to] = [row, (row += ids.length)];
      const last = Float32Array.from([...ids.keys()].flatMap((i) => [...results.output(from + i)]));
      const slices = taps.map(([name, values]) => [name, values.slice(from * config.dim, to * config.dim)] as const);
      return new Map([...slices, ['last_hidden_state', last]]);
    });
  }

  async close(): Promise<void> {
    await this.#backend.dispose();
    await this.#files.close();
  }
}
