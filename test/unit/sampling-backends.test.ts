/** Sampling over forwards: the same tokens by both backends, whatever the threads and the other rows. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { COLUMNS, logitsTable } from '../../bench/logits-table.ts';
import type { Backend } from '../../src/backend/backend.ts';
import { createReferenceBackend } from '../../src/backend/reference/backend.ts';
import { buildBackend } from '../../src/backend/wasm/backend.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { LanewiseError } from '../../src/errors.ts';
import { sampleRows } from '../../src/sampling/sample-rows.ts';
import { Sampler } from '../../src/sampling/sampler.ts';
import { type SamplingOptions, validateSampling } from '../../src/sampling/sampling-options.ts';
import { noise } from '../kernels/support.ts';

const VOCAB = 17_003;

async function open(threads: number | 'reference', factor: number): Promise<Backend> {
  const random = noise(7);
  const table = logitsTable(VOCAB, () => factor * random());
  const options = { ...table, maxRows: COLUMNS, maxWanted: COLUMNS };
  if (threads === 'reference') return createReferenceBackend(options);
  const host = nodeHost();
  return buildBackend({ ...options, host, threads, choice: chooseKernels(host), allThreads: true });
}

const cases: readonly SamplingOptions[] = [
  { temperature: 0 },
  {},
  { topP: 0.9 },
  { topK: 5, topP: 0.95 },
  { topK: 4000, topP: 0.6, minP: 0.3 },
  { minP: 0.2, temperature: 3 },
  { topP: 0.5, repetitionPenalty: 1.4, frequencyPenalty: 0.5, logitBias: { 3: 5, 77: Number.NEGATIVE_INFINITY } },
  { temperature: 0, constraint: () => ({ allowed: (mask) => void mask.fill(0x01010101), accept() {} }) },
  { topP: 0.8, logprobs: 20, constraint: () => ({ allowed: (mask) => void mask.fill(0, 100), accept() {} }) },
  { logitsProcessor: (logits) => void logits.fill(-3, 0, 9000) },
];

/** Ids of two tokens in a row, of each case, with those of the most probable ones; rows alone, or all in one call. */
async function samples(backend: Backend, together: boolean): Promise<unknown[]> {
  const samplers = cases.map((options, seed) => new Sampler(validateSampling({ ...options, seed }), [1, 2, 3, 500]));
  const tokens = Int32Array.from(cases, (_, i) => i);
  await backend.cache.ensure(tokens.length);
  const found: unknown[] = [];
  for (let turn = 0; turn < 2; turn++) {
    const results = await backend.forward({
      tokens: tokens.map((row) => (row + 3 * turn) % COLUMNS),
      positions: new Int32Array(tokens.length).fill(turn),
      sequences: tokens,
      pages: Array.from(tokens, (row) => Int32Array.of(row)),
      wanted: tokens,
    });
    const rows = samplers.map((sampler, row) => ({ row, sampler }));
    const taken = together ? await sampleRows(results, rows) : [];
    if (!together) for (const row of rows) taken.push(...(await sampleRows(results, [row])));
    for (const [i, sample] of taken.entries()) {
      assert.ok(!(sample instanceof LanewiseError), `case ${i}: ${sample}`);
      samplers[i]!.accept(sample.id);
      found.push([i, sample.id, sample.top?.map(({ id }) => id)]);
    }
  }
  return found;
}

test('the same tokens by both backends, alone and in a batch, for any number of threads', async () => {
  let expected: unknown[] | undefined;
  for (const threads of ['reference', 1, 3] as const) {
    const backend = await open(threads, 4);
    try {
      for (const together of threads === 'reference' ? [true] : [true, false]) {
        const found = await samples(backend, together);
        expected ??= found;
        assert.deepEqual(found, expected, `${threads}, ${together ? 'together' : 'alone'}`);
      }
    } finally {
      await backend.dispose();
    }
  }
});
