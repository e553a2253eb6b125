/**
 * Prints a hash of what models compute here, as JSON: `node bits.mjs DIST GOLDEN [CASE;CASE...]`. Plain JavaScript, for
 * every Node that the package supports. DIST is a build of the package, GOLDEN the folder test/golden.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [dist, golden, list] = process.argv.slice(2);
const wanted = list === undefined ? undefined : new Set(list.split(';'));
const { load, loadEncoder } = await import(pathToFileURL(path.resolve(dist, 'node.js')).href);
const hash = (data) => createHash('sha256').update(data).digest('hex').slice(0, 16);
const warnings = [];
const onWarning = (text) => warnings.push(text);

/** Token ids and log-probabilities, each with all its bits. */
async function continuation(options) {
  const model = await load(undefined, { ...options, onWarning });
  const ids = [];
  const logprobs = [];
  for await (const event of model.generate('Once upon a time', { temperature: 0.8, seed: 7, maxTokens: 5 })) {
    if (event.type !== 'token') continue;
    ids.push(event.id);
    logprobs.push(event.logprob);
  }
  await model.dispose();
  return hash(JSON.stringify([ids, logprobs]));
}

/** What is computed: each a product family, an attention or a norm of its own. */
const cases = {
  'stories none': () => continuation({ quantize: 'none', threads: 1 }),
  'stories q8_0': () => continuation({ quantize: 'q8_0', threads: 2 }),
  'stories q4_0': () => continuation({ quantize: 'q4_0', threads: 1 }),
  'stories iq4_nl': () => continuation({ quantize: 'iq4_nl', threads: 2 }),
  'stories q4_k': () => continuation({ quantize: 'q4_k', threads: 2 }),
  'stories q5_k': () => continuation({ quantize: 'q5_k', threads: 1 }),
  'stories q6_k': () => continuation({ quantize: 'q6_k', threads: 1 }),
  'stories, cache in f16': () => continuation({ kvCache: 'f16', threads: 1 }),
  'stories, cache in q8_0': () => continuation({ kvCache: 'q8_0', threads: 2 }),
  // Grouped heads, soft caps and windows, experts, alibi, long rope, inputs per layer, and an encoder.
  'llama-gqa-f16': () => logits('llama-gqa-f16'),
  gemma2: () => logits('gemma2'),
  'qwen3-moe': () => logits('qwen3-moe'),
  'falcon-rw': () => logits('falcon-rw'),
  'phi3-longrope': () => logits('phi3-longrope'),
  gemma4: () => logits('gemma4'),
  bert: () => embedding('bert'),
};

async function logits(name) {
  const model = await load(path.join(golden, 'models', name), { quantize: 'none', threads: 2, onWarning });
  const chunks = [];
  for await (const { tensors } of model.forward([5, 9, 2, 11, 7, 3, 8, 4, 6, 1, 12, 10])) {
    const { values } = tensors.get('logits');
    chunks.push(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  await model.dispose();
  return hash(Buffer.concat(chunks));
}

async function embedding(name) {
  const encoder = await loadEncoder(path.join(golden, 'encoders', name), { threads: 2, onWarning });
  const [{ embedding }] = await encoder.embed(['a small boat on the river']);
  await encoder.dispose();
  return hash(JSON.stringify([...embedding]));
}

const hashes = {};
for (const [name, compute] of Object.entries(cases))
  if (wanted === undefined || wanted.has(name)) hashes[name] = await compute();
process.stdout.write(JSON.stringify({ hashes, warnings }));
