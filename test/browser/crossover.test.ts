/** The pages of `lanewise bench crossover` and of `lanewise bench --kernels`. */
import test from 'node:test';
import { measureCrossover } from '../../src/measure/crossover.ts';
import { crossoverReport } from '../../src/measure/crossover-report.ts';
import { kernelReport } from '../../src/measure/kernel-report.ts';
import type { KernelTime } from '../../src/measure/kernel-times.ts';
import { storageBytes } from '../../src/quant/storage.ts';
import { renderHtml } from '../../src/report/html.ts';
import { plantedTimes } from '../unit/planted-times.ts';
import { checkPage, noChromium, withChromium } from './pages.ts';

/** Folder for screenshots, to look at them. */
const folder = process.env.LANEWISE_SCREENSHOTS;
const pictures = (name: string): string | undefined => (folder === undefined ? undefined : `${folder}/${name}`);

test('crossings and rooflines are pages that work', { skip: noChromium }, async () => {
  const measured = await measureCrossover(
    {
      types: ['f32', 'q8_0', 'q4_k'],
      dims: [64, 128, 256, 512, 1024, 2048, 4096],
      shapes: [[3072, 768]],
      models: [{ model: '<b>m</b>', name: 'ffn', shape: [768, 768], count: 4, output: false }],
      rows: [1, 128],
      from: ['memory'],
    },
    plantedTimes(
      (type, [out, inputs], rows) => (rows * out * storageBytes(type, inputs)) / 4e7 + (type === 'f32' ? 0 : 0.01),
    ),
  );
  const machine = [['Processor', 'a processor']] as const;
  const crossover = crossoverReport(measured, { command: 'lanewise bench crossover', machine });
  const kernel = (
    work: KernelTime['work'],
    name: string,
    bytes: number,
    operations: number | undefined,
  ): KernelTime => ({
    ...{ work, kernel: name, ms: 1, share: 0.5, bytes, operations, rate: undefined },
    roof: work === 'decode' ? 'read' : 'q8',
  });
  const kernels = [
    kernel('prefill', 'matmul q8_0', 2e6, 180e6),
    kernel('prefill', 'activate', 2e6, undefined),
    kernel('decode', 'matmul q8_0', 30e6, 60e6),
    kernel('decode', 'attention', 3e6, 1.5e6),
  ];
  const roofs = { read: 35e9, f32: 190e9, q8: 320e9 };
  const roofline = kernelReport({ command: 'lanewise bench', machine, models: [{ policy: 'q8_0', kernels }], roofs });
  await withChromium(async (browser) => {
    await checkPage(browser, renderHtml(crossover), pictures('crossover'));
    await checkPage(browser, renderHtml(roofline), pictures('roofline'));
  });
});
