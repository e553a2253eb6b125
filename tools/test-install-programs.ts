/** Programs that `npm run test:install` runs and compiles. */

/** Tokens and log-probabilities of the embedded model on two threads, as one JSON line. */
export const program = `
import { createHash } from 'node:crypto';
import { load } from 'lanewise';

async function main() {
  const warnings = [];
  const model = await load(undefined, { threads: 2, onWarning: (text) => warnings.push(text) });
  const hash = createHash('sha256');
  for await (const event of model.generate('Once upon a time', { maxTokens: 24, temperature: 0 })) {
    if (event.type === 'token') hash.update(event.id + ' ').update(new Float64Array([event.logprob]));
  }
  console.log(JSON.stringify({ hash: hash.digest('hex').slice(0, 16), threads: model.threads, warnings }));
  await model.dispose();
}
main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
`;

/** Uses the types of both entries as programs do. */
export const consumer = `
import { type GenerateOptions, type LoadOptions, load, loadEncoder, OptionError } from 'lanewise';
import { load as inBrowser } from 'lanewise/browser';

const undecided: number | undefined = [1][0];
const options: LoadOptions = { threads: undecided, kvCache: 'f16' };
const sampling: GenerateOptions = { maxTokens: 3, temperature: undecided };

export async function main(): Promise<string> {
  const model = await load('folder', options);
  let text = '';
  for await (const event of model.generate('Once', sampling)) if (event.type === 'token') text += event.text;
  const results = await model.generateBatch(['a'], sampling);
  const count: number = results.length;
  // @ts-expect-error: a number is no policy
  await load('folder', { quantize: 1 });
  await model.dispose();
  return text + count + String(loadEncoder) + String(inBrowser) + OptionError.name;
}
`;
