/** Host for browsers: no compiler flags, threads if the page is isolated. */
import { BackendError } from '../../../errors.ts';
import type { Thread, WasmHost } from './host.ts';
import type { ThreadSetup } from './thread-setup.ts';

/** @param inWorker describes a worker that this thread would start, instead of this thread */
export function browserHost(inWorker = false): WasmHost {
  const reason = whyNoThreads(inWorker);
  return {
    // Undefined or wrong in browsers that hide it.
    cores: Math.max(1, Math.trunc(globalThis.navigator?.hardwareConcurrency ?? 1)),
    coresCounted: false,
    memoryBytes: memoryBytes(),
    threads: reason === undefined ? { possible: true } : { possible: false, reason },
    widens: false,
    why: {
      cores: 'navigator.hardwareConcurrency; fewer are tried where fewer are faster',
      vectors: 'WebAssembly has vectors of 128 bits, and a page cannot set flags of the engine',
      memory: hasDeviceMemory() ? 'navigator.deviceMemory, which says at most 8 GiB' : 'not known: 2 GiB are assumed',
    },
    compile: (bytes) => new WebAssembly.Module(bytes),
    spawn,
  };
}

const hasDeviceMemory = (): boolean =>
  ((globalThis.navigator ?? {}) as { readonly deviceMemory?: number }).deviceMemory !== undefined;

/** Chrome reports a rounded size of at most 8 GiB. Other browsers report none and may run on a phone. */
function memoryBytes(): number {
  const { deviceMemory = 2 } = (globalThis.navigator ?? {}) as { readonly deviceMemory?: number };
  return deviceMemory * 2 ** 30;
}

function whyNoThreads(inWorker: boolean): string | undefined {
  if (!inWorker && typeof document !== 'undefined') {
    return 'the main thread of a page may not wait for other threads; load the model without inline, or in a worker';
  }
  if (!globalThis.crossOriginIsolated) {
    return 'the page is not isolated; serve it with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp';
  }
  if (typeof Worker === 'undefined') return 'this browser starts no workers from workers';
  return sharesMemory() ? undefined : 'this browser shares no WebAssembly memory between threads';
}

/** WebKitGTK isolates pages but has no SharedArrayBuffer. */
function sharesMemory(): boolean {
  if (typeof SharedArrayBuffer === 'undefined') return false;
  try {
    return new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer instanceof SharedArrayBuffer;
  } catch {
    return false;
  }
}

function spawn(setup: ThreadSetup): Thread {
  // Bundlers find the worker only by this expression, with the name of the built file.
  const worker = new Worker(new URL('./worker-browser.js', import.meta.url), {
    type: 'module',
    name: `lanewise ${setup.thread}`,
  });
  const ready = new Promise<void>((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = ({ message, filename }) => {
      const cause = message || `${filename || 'its script'} could not be loaded`;
      reject(new BackendError('ThreadFailed', `thread ${setup.thread} did not start: ${cause}`));
    };
  });
  worker.postMessage(setup);
  return {
    ready,
    // Browsers do not report the end of a worker: a walk that waits for one fails after the barrier's timeout.
    ended: new Promise(() => {}),
    async terminate() {
      worker.terminate();
    },
  };
}
