/** Random SafeTensors headers: valid ones are read back, broken ones load or are refused with a FormatError. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { memorySource } from '../../src/formats/bytes.ts';
import { readSafeTensorsHeader } from '../../src/formats/safetensors.ts';
import { checkMutant, mutants, writtenFiles } from './safetensors-arbitrary.ts';

test('files of the writer are read back', async () => {
  const property = fc.asyncProperty(writtenFiles, async ({ bytes, placed, metadata }) => {
    const header = await readSafeTensorsHeader(memorySource('x', bytes));
    assert.deepEqual([...header.metadata], Object.entries(metadata));
    assert.equal(header.tensors.size, placed.length);
    for (const tensor of placed) assert.deepEqual(header.tensors.get(tensor.name), tensor);
  });
  await fc.assert(property, { numRuns: 500 });
});

test('broken headers are FormatErrors, or load consistently', async () => {
  let loaded = 0;
  const property = fc.asyncProperty(mutants, async (bytes) => {
    if (await checkMutant(bytes)) loaded++;
  });
  await fc.assert(property, { numRuns: 5000 });
  assert.ok(loaded > 0, 'some changes do no harm');
});
