import assert from 'node:assert/strict';
import test from 'node:test';
import { renderStepTable } from '../../src/cli/step-table.ts';
import { renderStorageTable, type StoredLayer } from '../../src/cli/storage-table.ts';
import { renderTable } from '../../src/cli/table.ts';

test('step table as in the report', () => {
  const text = renderStepTable([
    { step: 1, prefill: true, phases: { embedding: 0.154, layers: 125.2, norm: 0.7, projection: 10.6, total: 137.4 } },
    { step: 2, prefill: false, phases: { embedding: 0.11, layers: 8.96, norm: 0.04, projection: 4.5, total: 13.64 } },
  ]);
  assert.equal(
    text,
    [
      '| Step        | Embedding | Layers |   Norm | Projection |  Total |',
      '| ----------- | --------: | -----: | -----: | ---------: | -----: |',
      '| 1 (prefill) |    0.15ms |  125ms | 0.70ms |     10.6ms |  137ms |',
      '| 2           |    0.11ms |  9.0ms | 0.04ms |      4.5ms | 13.6ms |',
      '',
    ].join('\n'),
  );
});

/** GPT-2's 73 linear layers under q8_0:min-dim=1024. */
function gpt2Layers(): StoredLayer[] {
  const layer = (name: string, role: string, width: number, out: number): StoredLayer => {
    const quantized = Math.max(width, out) >= 1024;
    return {
      name,
      role,
      in: width,
      out,
      stored: quantized ? 'q8_0' : 'f32',
      quantized,
      reason: `max dim ${Math.max(width, out)} ${quantized ? '≥' : '<'} 1024`,
      bytes: quantized ? (width * out * 34) / 32 : width * out * 4,
    };
  };
  return [
    ...Array.from({ length: 12 }, (_, n) => [
      ...['q', 'k', 'v', 'o'].map((member) => layer(`layers.${n}.attention.${member}`, 'attention', 768, 768)),
      layer(`layers.${n}.ffn.up`, 'ffn', 768, 3072),
      layer(`layers.${n}.ffn.down`, 'ffn', 3072, 768),
    ]).flat(),
    layer('output', 'output', 768, 50257),
  ];
}

test('storage table groups layers as the report does and counts 25 of 73', () => {
  const lines = renderStorageTable(gpt2Layers())
    .split('\n')
    .map((line) => line.replace(/ +/g, ' '));
  assert.deepEqual(lines.slice(2), [
    '| attention q/k/v/o | 48 | 768 → 768 | f32 | 113.2 MB | max dim 768 < 1024 |',
    '| ffn up | 12 | 768 → 3072 | q8_0 | 30.1 MB | max dim 3072 ≥ 1024 |',
    '| ffn down | 12 | 3072 → 768 | q8_0 | 30.1 MB | max dim 3072 ≥ 1024 |',
    '| output | 1 | 768 → 50257 | q8_0 | 41.0 MB | max dim 50257 ≥ 1024 |',
    '| Total quantized | 25 of 73 | | | 214.4 MB | |',
    '',
  ]);
});

test('a tied output head says that it shares its bytes', () => {
  const tied = gpt2Layers().map((layer) => (layer.name === 'output' ? { ...layer, bytes: 0 } : layer));
  assert.match(renderStorageTable(tied), /\| output .*\| +shared \|/);
});

test('cells cannot break a table, missing cells are empty', () => {
  const text = renderTable([{ title: 'A' }, { title: 'B', align: 'right' }], [['x|y', '1'], ['→']]);
  assert.equal(text, '| A    |   B |\n| ---- | --: |\n| x\\|y |   1 |\n| →    |     |\n');
});
