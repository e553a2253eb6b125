import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { KernelNotes } from '../../src/backend/wasm/choosing/kernel-notes.ts';
import { chooseKernels } from '../../src/backend/wasm/choosing/probe.ts';
import { tuned } from '../../src/backend/wasm/choosing/tune.ts';
import type { Notes, WasmHost } from '../../src/backend/wasm/threads/host.ts';
import { cachedNotes, nodeHost } from '../../src/backend/wasm/threads/host-node.ts';
import { loadModel } from '../../src/engine/load.ts';
import { embeddedModel, locate } from '../../src/node.ts';
import type { Storage } from '../../src/quant/storage.ts';

const storages = ['f32', 'q8_0', 'q4_0', 'q4_k'] as const;
const choice = chooseKernels(nodeHost());
const tunedOn = (host: WasmHost, of: readonly Storage[] = storages) => {
  const book = new KernelNotes(host.notes);
  const result = tuned(host, choice, of, book);
  book.close();
  return result;
};

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

test('tile shapes are measured once per machine, and again if the note is of another machine', () => {
  const { host, kept } = withNotes();
  const first = tunedOn(host);
  assert.ok(kept.compiled > 0);
  const measured = kept.compiled;
  assert.deepEqual(tunedOn(host), first);
  assert.equal(kept.compiled, measured);
  const note = kept.text!;
  const others = ['', '{', '7', '{"machine":"here"}', note.replace(/:(-1|\d)/g, ':9')];
  for (const broken of others) {
    const again = withNotes(broken);
    tunedOn(again.host);
    assert.equal(again.kept.compiled, measured, broken);
  }
  const elsewhere = withNotes(note, 'there');
  tunedOn(elsewhere.host);
  assert.equal(elsewhere.kept.compiled, measured);
});

test('kept shapes are used, and nothing is measured where nothing can be kept', () => {
  const key = `tile ${choice.wide ? 'wide' : 'narrow'} ${choice.q8} ${choice.q4} q8_0`;
  const { host, kept } = withNotes(JSON.stringify({ machine: 'here', known: { [key]: 2 } }));
  assert.deepEqual(tunedOn(host, ['q8_0']).tiles, { q8_0: { tokens: 6, lanes: choice.wide ? 16 : 8 } });
  assert.equal(kept.compiled, 0);
  assert.equal(tunedOn({ ...host, notes: undefined }), choice);
});

test('notes survive in the folder of caches, and their absence is no error', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'lanewise-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const notes = cachedNotes({ XDG_CACHE_HOME: folder })!;
  assert.equal(notes.read(), undefined);
  notes.write('first');
  notes.write('second');
  assert.equal(cachedNotes({ XDG_CACHE_HOME: folder })!.read(), 'second');
  assert.deepEqual(readdirSync(path.join(folder, 'lanewise')), ['machine.json']);
  assert.equal(cachedNotes({ XDG_CACHE_HOME: path.join(folder, 'lanewise', 'machine.json') })!.read(), undefined);
  cachedNotes({ XDG_CACHE_HOME: path.join(folder, 'lanewise', 'machine.json') })!.write('nowhere');
  assert.equal(cachedNotes({ LANEWISE_NOTES: 'off' }), undefined);
});

test('kernels are checked once on a machine', async () => {
  const { host, kept } = withNotes();
  const { folder } = await locate(embeddedModel);
  const compiledBy = async (): Promise<number> => {
    kept.compiled = 0;
    await (await loadModel({ folder, host }, { threads: 1 })).dispose();
    return kept.compiled;
  };
  const [first, second] = [await compiledBy(), await compiledBy()];
  assert.ok(second < first);
  const { machine, known } = JSON.parse(kept.text!) as { machine: string; known: Record<string, number> };
  const others = Object.entries(known).filter(([name]) => !/^right .* f16$/.test(name));
  kept.text = JSON.stringify({ machine, known: Object.fromEntries(others) });
  const third = await compiledBy();
  assert.ok(second < third && third < first);
});
