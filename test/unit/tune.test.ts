import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import type { Notes, WasmHost } from '../../src/backend/wasm/host.ts';
import { cachedNotes, nodeHost } from '../../src/backend/wasm/host-node.ts';
import { chooseKernels } from '../../src/backend/wasm/probe.ts';
import { tuned } from '../../src/backend/wasm/tune.ts';

const storages = ['f32', 'q8_0', 'q4_0', 'q4_k'] as const;
const choice = chooseKernels(nodeHost());

function withNotes(text?: string, machine = 'here') {
  const kept = { text, compiled: 0 };
  const notes: Notes = { machine, read: () => kept.text, write: (written) => (kept.text = written) };
  const node = nodeHost();
  const host: WasmHost = {
    ...node,
    notes,
    compile: (bytes, options) => {
      kept.compiled++;
      return node.compile(bytes, options);
    },
  };
  return { host, kept };
}

test('shapes are measured once for a machine, and again where the note is not of it', () => {
  const { host, kept } = withNotes();
  const first = tuned(host, choice, storages);
  assert.ok(kept.compiled > 0);
  const measured = kept.compiled;
  assert.deepEqual(tuned(host, choice, storages), first);
  assert.equal(kept.compiled, measured);
  const note = kept.text!;
  const others = ['', '{', '7', '{"machine":"here"}', note.replace(/:(-1|\d)/g, ':9')];
  for (const broken of others) {
    const again = withNotes(broken);
    tuned(again.host, choice, storages);
    assert.equal(again.kept.compiled, measured, broken);
  }
  const elsewhere = withNotes(note, 'there');
  tuned(elsewhere.host, choice, storages);
  assert.equal(elsewhere.kept.compiled, measured);
});

test('kept shapes are used, and nothing is measured where nothing can be kept', () => {
  const key = `${choice.wide ? 'wide' : 'narrow'} ${choice.q8} ${choice.q4} q8_0`;
  const { host, kept } = withNotes(JSON.stringify({ machine: 'here', tiles: { [key]: 2 } }));
  assert.deepEqual(tuned(host, choice, ['q8_0']).tiles, { q8_0: { tokens: 6, lanes: choice.wide ? 16 : 8 } });
  assert.equal(kept.compiled, 0);
  assert.equal(tuned({ ...host, notes: undefined }, choice, storages), choice);
});

test('notes survive in the folder of caches, and their absence is no error', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const notes = cachedNotes({ XDG_CACHE_HOME: folder })!;
  assert.equal(notes.read(), undefined);
  notes.write('first');
  notes.write('second');
  assert.equal(cachedNotes({ XDG_CACHE_HOME: folder })!.read(), 'second');
  assert.deepEqual(readdirSync(path.join(folder, 'lanewise')), ['tiles.json']);
  assert.equal(cachedNotes({ XDG_CACHE_HOME: path.join(folder, 'lanewise', 'tiles.json') })!.read(), undefined);
  cachedNotes({ XDG_CACHE_HOME: path.join(folder, 'lanewise', 'tiles.json') })!.write('nowhere');
  assert.equal(cachedNotes({ LANEWISE_TUNE: 'off' }), undefined);
});
