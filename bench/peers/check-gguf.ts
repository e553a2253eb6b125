/**
 * Writes models as GGUF files and runs them with llama.cpp (node-llama-cpp): `node bench/peers/check-gguf.ts MODEL...
 * [--to f32,q8_0]`. Greedy tokens must equal those of Lanewise (f32 files: with the original model; others: with the
 * file), and token ids of a text those of tokenizer.json. Where the tokens differ, their logits must be nearly equal:
 * llama.cpp quantizes activations in another way.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { load, type Model, quantizeModel, type WritableType } from '../../src/node.ts';
import { argumentsOf } from '../arguments.ts';

const TOKENS = 16;
/** Logits closer than this count as equal, as rounding decides between them; quantized activations round more. */
const TIE = 1e-2;
const QUANTIZED_TIE = 0.5;

interface Answer {
  readonly ids: number[];
  readonly text: number[] | undefined;
  readonly error?: string;
}

/** Results of llama.cpp for a file: token ids of a text, and the greedy continuation of token ids. */
function askLlama(file: string, prompt: readonly number[], text: string): Promise<Answer> {
  const script = new URL('./check-gguf-side.mjs', import.meta.url).pathname;
  const args = [script, JSON.stringify({ modelPath: file, prompt, text, count: TOKENS })];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      const line = out.split('\n').findLast((part) => part.startsWith('{'));
      resolve(line ? JSON.parse(line) : { ids: [], text: undefined, error: `exit ${code}` });
    });
  });
}

/** Difference of the logits of Lanewise's best token and of llama.cpp's token. */
async function gapAt(model: Model, ids: number[], other: number | undefined): Promise<number> {
  if (other === undefined) return Number.POSITIVE_INFINITY;
  const { value } = await model.forward(ids, { from: ids.length - 1 }).next();
  const last = value!.tensors.get('logits')!.values;
  return last.reduce((best, value) => Math.max(best, value)) - last[other]!;
}

const describe = (ours: readonly number[], theirs: readonly number[]): string =>
  ours.join(' ') === theirs.join(' ') ? 'the same' : `other: ${ours.join(' ')} here, ${theirs.join(' ')} there`;

const { values, positionals } = argumentsOf({
  allowPositionals: true,
  options: { to: { type: 'string', default: 'f32' }, text: { type: 'string', default: 'Once upon a time, 12 cats' } },
});
const folder = await mkdtemp(join(tmpdir(), 'lanewise-check-'));
let failures = 0;
try {
  for (const input of positionals) {
    for (const to of values.to.split(',') as WritableType[]) {
      const file = join(folder, `${basename(input)}-${to}.gguf`);
      const { warnings } = await quantizeModel(input, file, { to });
      for (const warning of warnings) console.log(`${basename(input)}: ${warning}`);
      await using model = await load(to === 'f32' ? input : file, { inline: true, quantize: 'none' });
      const { vocab } = model.description.config;
      const prompt = Array.from({ length: 12 }, (_, i) => 3 + ((i * 37) % (vocab - 3)));
      const ours = await model.generateBatch([{ tokenIds: prompt }], {
        maxTokens: TOKENS,
        temperature: 0,
        ignoreEos: true,
      });
      const theirs = await askLlama(file, prompt, values.text);
      const agree = [...ours[0]!.tokenIds, -1].findIndex((id, i) => id !== theirs.ids[i]);
      const gap =
        agree === TOKENS ? 0 : await gapAt(model, [...prompt, ...ours[0]!.tokenIds.slice(0, agree)], theirs.ids[agree]);
      const ids = model.tokenizer?.encode(values.text, { addSpecial: false });
      const read = ids === undefined || theirs.text === undefined ? 'not compared' : describe(ids, theirs.text);
      const allowed = to === 'f32' ? TIE : QUANTIZED_TIE;
      if (theirs.error !== undefined || !(gap <= allowed) || read.startsWith('other')) failures++;
      console.log(
        `${basename(input)} ${to}: ${theirs.error ?? `${agree} of ${TOKENS} tokens agree${agree < TOKENS ? ` (${gap.toFixed(4)} apart here)` : ''}, text ${read}`}`,
      );
    }
  }
} finally {
  await rm(folder, { recursive: true });
}
process.exitCode = failures ? 1 : 0;
