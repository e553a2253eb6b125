/** The page of `lanewise tune --html`. */
import test from 'node:test';
import { renderHtml } from '../../src/report/html.ts';
import { memoryStore } from '../../src/tune/measures.ts';
import { tuneReport } from '../../src/tune/report.ts';
import { tune } from '../../src/tune/tune.ts';
import type { Unit } from '../../src/tune/unit.ts';
import { checkPage, noChromium, withChromium } from './pages.ts';

/** Folder for screenshots, to look at them. */
const folder = process.env.LANEWISE_SCREENSHOTS;

test('curves of loss by size and speed are a page that works', { skip: noChromium }, async () => {
  const errors: Record<string, number> = {
    f32: 0,
    f16: 1e-8,
    q8_0: 3e-5,
    q6_k: 2e-4,
    q5_k: 1e-3,
    q4_k: 4e-3,
    q4_0: 6e-3,
  };
  const ms: Record<string, number> = { f32: 4, f16: 2.2, q8_0: 1.2, q6_k: 1, q5_k: 0.9, q4_k: 0.8, q4_0: 0.7 };
  const units = Array.from({ length: 12 }, (_, layer): Unit => {
    const name = layer === 3 ? '<img src=x onerror=alert(1)>' : `layers.${layer}.ffn.up`;
    return {
      name,
      kind: 'ffn.up',
      layer,
      matrices: [{ name, role: 'ffn', shape: [1024, 256], uses: 1, stored: 'f32' }],
      weights: [name],
      types: ['f32', 'f16', 'q8_0', 'q6_k', 'q5_k', 'q4_k', 'q4_0'],
      stored: 'f32',
    };
  });
  const lossOf = (weights: Readonly<Record<string, string>>): number =>
    units.reduce((sum, { name, layer }) => sum + (1 + layer!) * errors[weights[name] ?? 'f32']!, 0);
  const tuned = await tune({
    units,
    fixedBytes: 50_000,
    alignment: 32,
    store: memoryStore(),
    budget: { kind: 'size', bytes: 2.6e6 },
    samples: 5,
    measures: {
      errors: async (_, types) => types.map((type) => ({ weights: errors[type]!, output: errors[type]! / 2 })),
      times: async ({ types }) => types.map((type) => ({ rowMs: ms[type]!, chunkRowMs: ms[type]! / 8 })),
      loss: async (weights) => lossOf(weights),
      planLoss: async (weights) => 1.1 * lossOf(weights),
      race: async (plans) => plans.map(() => [1]),
    },
  });
  const report = tuneReport({
    tuned,
    model: '</script><b>model</b>',
    budget: 'size=2.6MB',
    lossName: 'KL divergence',
    text: '512 tokens of the built-in English text',
    command: 'lanewise tune ./model --budget size=2.6MB --output plan.json --html tune.html',
    machine: [['Processor', 'a processor']],
  });
  await withChromium((browser) =>
    checkPage(browser, renderHtml(report), folder === undefined ? undefined : `${folder}/tune`),
  );
});
