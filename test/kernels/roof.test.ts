import assert from 'node:assert/strict';
import test from 'node:test';
import { measureRoofs } from '../../src/backend/wasm/measuring/roof.ts';
import { nodeHost } from '../../src/backend/wasm/threads/host-node.ts';

for (const threads of [1, 2]) {
  test(`measures every ceiling with ${threads} threads`, async () => {
    const q8 = { neighbours: 2, flip: 0 } as const;
    const roofs = await measureRoofs(nodeHost(), { threads, wide: false, q8, readBytes: 2 ** 20, turns: 2 });
    for (const { best, median } of [roofs.readOne, roofs.readAll, roofs.f32, roofs.q8]) {
      assert.ok(median > 0 && best >= median && Number.isFinite(best));
    }
    assert.match(roofs.f32.tile, /^\dx(8|16)$/);
  });
}
