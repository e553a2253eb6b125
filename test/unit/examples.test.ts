/** The examples say what they promise. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type GenerateOptions, load } from '../../src/node.ts';

const folder = new URL('../../examples/', import.meta.url);

async function told(prompt: string, options: GenerateOptions): Promise<string> {
  await using model = await load(undefined, { inline: true });
  return (await model.complete(prompt, options)).text;
}

/** What the output of an example must be. */
const checks: Readonly<Record<string, (out: string) => Promise<void> | void>> = {
  async 'generate.ts'(out) {
    const text = await told('Once upon a time', { maxTokens: 40, temperature: 0.7, topK: 40, seed: 1 });
    assert.equal(out, `${text}\n(length after 40 tokens)\n`);
  },

  async 'batch.ts'(out) {
    const lines = out.trimEnd().split('\n');
    const prompts = ['The old wizard', 'One day, a little', 'The brave fox'];
    const alone: string[] = [];
    for (const prompt of prompts) alone.push(prompt + (await told(prompt, { maxTokens: 20, temperature: 0 })));
    assert.deepEqual(lines.toSorted(), alone.join('\n').split('\n').toSorted());
  },

  'chat.ts'(out) {
    const [, first, firstKnown, second, secondKnown, of] =
      /^> Tell me about a fox\.\n(.+)\n\((\d+) of \d+ tokens were known\)\n> And then\?\n(.+)\n\((\d+) of (\d+) tokens were known\)\n$/s.exec(
        out,
      )!;
    assert.ok(first!.length > 50 && second!.length > 10 && first !== second);
    assert.equal(firstKnown, '0');
    // The second turn has the first question and its answer of 40 tokens in front.
    assert.ok(Number(secondKnown) >= 40 && Number(secondKnown) < Number(of), `${secondKnown} of ${of}`);
  },

  async 'quantize.ts'(out) {
    const lines = out.trimEnd().split('\n');
    const decibels = lines.slice(0, 4).map((line) => Number(/^\S+: F16 to Q8_0, ([\d.]+) dB$/.exec(line)?.[1]));
    for (const value of decibels) assert.ok(value > 30 && value < 60, lines.join('\n'));
    // Eight bits keep the story.
    const text = await told('Once upon a time', { maxTokens: 20, temperature: 0 });
    assert.equal(lines.slice(4).join('\n'), `Once upon a time${text}`);
  },
};

test('every example has its check', () => {
  assert.deepEqual(readdirSync(folder).sort(), Object.keys(checks).sort());
});

for (const [file, check] of Object.entries(checks)) {
  test(`examples/${file} says what it promises`, async () => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [fileURLToPath(new URL(file, folder))]);
    assert.equal(stderr, '');
    await check(stdout);
  });
}
