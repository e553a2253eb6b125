/** Random GGUF headers: valid ones are read back, broken ones load or are refused with a FormatError. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { memorySource } from '../../src/formats/bytes.ts';
import { readGgufHeader } from '../../src/formats/gguf-header.ts';
import { checkMutant, mutants, writtenFiles } from './gguf-arbitrary.ts';

test('files of the writer are read back', async () => {
  const property = fc.asyncProperty(writtenFiles, async ({ bytes, placed, metadata }) => {
    const header = await readGgufHeader(memorySource('x', bytes));
    assert.deepEqual(header.metadata, metadata);
    assert.deepEqual([...header.tensors.values()], placed);
  });
  await fc.assert(property, { numRuns: 500 });
});

test('broken files load or are FormatErrors, and what loads is consistent', async () => {
  let loaded = 0;
  const property = fc.asyncProperty(mutants, async (bytes) => {
    if (await checkMutant(bytes)) loaded++;
  });
  await fc.assert(property, { numRuns: 5000 });
  assert.ok(loaded > 0, 'some changes do no harm');
});
