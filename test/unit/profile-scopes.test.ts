import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { createScopeTimer, phasesOf, type ScopedStep, type ScopeTime } from '../../src/profile/scopes.ts';

const steps: readonly ScopedStep[] = [
  { scope: 'embedding', op: 'embed' },
  { scope: 'layer[0].attention', op: 'norm' },
  { scope: 'layer[0].attention', op: 'matmul' },
  { scope: 'layer[0].ffn', op: 'matmul' },
  { scope: 'layer[1].attention', op: 'matmul' },
  { scope: 'layer[1].ffn', op: 'matmul' },
  { scope: '', op: 'select' },
  { scope: 'norm', op: 'norm' },
  { scope: 'projection', op: 'matmul' },
];
const times = [1, 2, 4, 8, 16, 32, 64, 128, 256].map((ms, step) => ({ step, ms }));

interface Brief {
  readonly name: string;
  readonly ms: number;
  readonly children?: readonly Brief[];
}

const brief = ({ name, ms, children }: ScopeTime): Brief =>
  children.length === 0 ? { name, ms } : { name, ms, children: children.map(brief) };

test('times of steps become a tree by dotted scope', () => {
  assert.deepEqual(brief(createScopeTimer(steps)(times)), {
    name: 'model',
    ms: 511,
    children: [
      { name: 'embedding', ms: 1 },
      {
        name: 'layer[0]',
        ms: 14,
        children: [
          { name: 'attention', ms: 6 },
          { name: 'ffn', ms: 8 },
        ],
      },
      {
        name: 'layer[1]',
        ms: 48,
        children: [
          { name: 'attention', ms: 16 },
          { name: 'ffn', ms: 32 },
        ],
      },
      { name: 'norm', ms: 128 },
      { name: 'projection', ms: 256 },
    ],
  });
});

test('phases are the columns of the report, total includes steps outside them', () => {
  assert.deepEqual(phasesOf(createScopeTimer(steps)(times)), {
    embedding: 1,
    layers: 62,
    norm: 128,
    projection: 256,
    total: 511,
  });
});

test('a timer starts every forward from zero and adds repeated steps', () => {
  const timer = createScopeTimer(steps);
  timer(times);
  const tree = timer([
    { step: 0, ms: 3 },
    { step: 0, ms: 4 },
  ]);
  assert.equal(tree.ms, 7);
  assert.equal(phasesOf(tree).layers, 0);
});

test('every scope holds the sum of the steps below it', () => {
  const scope = fc.array(fc.constantFrom('a', 'b', 'layer[0]', 'layer[1]'), { maxLength: 3 }).map((p) => p.join('.'));
  fc.assert(
    fc.property(fc.array(fc.tuple(scope, fc.nat(1000))), (entries) => {
      const tree = createScopeTimer(entries.map(([scope]) => ({ scope, op: 'x' })))(
        entries.map(([, ms], step) => ({ step, ms })),
      );
      const visit = (node: typeof tree): void => {
        const below = entries.filter(([scope]) => `${scope}.`.startsWith(node.path === '' ? '' : `${node.path}.`));
        assert.equal(
          node.ms,
          below.reduce((sum, [, ms]) => sum + ms, 0),
        );
        node.children.forEach(visit);
      };
      visit(tree);
    }),
  );
});
